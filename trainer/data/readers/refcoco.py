"""RefCOCO, RefCOCO+ and RefCOCOg: COCO images as clips of one frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import GIVE_EXPRESSIONS, ClipsReader, Query, few, tidy
from rvos_edge.trainer.data.readers.coco_file import find_image, read_coco
from rvos_edge.trainer.data.readers.images import check_sizes, read_size

_CONVERT = "import json,pickle;json.dump(pickle.load(open('refs(unc).p','rb')),open('refs.json','w'))"


class RefCocoClips(ClipsReader):
    """Expressions about COCO instances (Kazemzadeh et al. 2014, Yu et al. 2016).

        ROOT/instances.json                             COCO instances
        ROOT/refs.json                                  [{ref_id, ann_id, image_id, split, sentences: [{sent | raw}]}]
        ROOT/images/FILE or ROOT/train2014/FILE

    The official refs(unc).p is a pickle of this list. Unpickling can run any code, so the file is not read; its owner
    converts it once. A video is an image, named by its id; a key is REF/SENTENCE.

    Args:
        split: "train", "val", "testA", ... as in the file, or "all".

    Raises:
        UserError: A folder or file is missing or of another form, or a reference names an unknown image or instance.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        expressions: str | Path | None = None,
        videos: Sequence[str] | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
    ) -> None:
        root = Path(root)
        self.images = Path(images) if images else find_images(root)
        if not self.images.is_dir():
            raise UserError(f"the COCO image folder {self.images} does not exist: give the folder of the images")
        path = find_references(root, expressions)
        references = [ref for ref in _read_references(path) if split in (ref["split"], "all")]
        if not references:
            raise UserError(f"{path} has no split '{split}': say train, val, testA, testB, test or all")
        file = read_coco(Path(annotations) if annotations else root / "instances.json", images=self.images)
        self._pictures = file.pictures
        self._instances = {one.id: one for picture in file.annotated for one in picture.instances if not one.guessed}
        unknown = [
            str(ref["ref_id"])
            for ref in references
            if str(ref["image_id"]) not in self._pictures or int(ref["ann_id"]) not in self._instances
        ]
        if unknown:
            raise UserError(f"{path} names images or annotations that instances.json lacks (refs {few(unknown)})")
        queries: dict[str, list[Query]] = {}
        for ref in references:
            queries.setdefault(str(ref["image_id"]), []).extend(
                Query(f"{ref['ref_id']}/{number}", tidy(said.get("sent") or said.get("raw")), int(ref["ann_id"]))
                for number, said in enumerate(ref["sentences"])
            )
        known = {video: tuple(items) for video, items in queries.items()}
        super().__init__(root, known, tuple(known) if videos is None else videos)

    def annotated(self, video: str) -> list[int]:
        """Index of the single frame."""
        return [0]

    def image_path(self, video: str, index: int) -> Path:
        """The image file."""
        file = self._pictures[video].file
        return find_image(self.images, file) or self.images / file

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of the image, bool [N,H,W].

        Raises:
            UserError: The annotation is of another size than the image.
        """
        path = self.image_path(video, index)
        size = self._pictures[video].size
        check_sizes(size, read_size(path), path)
        ids = [query.object_id for query in self.queries(video) if query.object_id is not None]
        masks = {number: self._instances[number].mask(size) for number in set(ids)}
        return np.stack([masks[number] for number in ids])

    def _list_frames(self, video: str) -> Sequence[str]:
        return [Path(self._pictures[video].file).stem]


def find_images(root: Path) -> Path:
    """Folder of the images: "images" or "train2014"."""
    places = [root / "images", root / "train2014", root.parent / "train2014"]
    return next((path for path in places if path.is_dir()), places[0])


def find_references(root: Path, expressions: str | Path | None = None) -> Path:
    """Path of the list of references.

    Raises:
        UserError: There is only the pickle.
    """
    path = Path(expressions) if expressions else root / "refs.json"
    pickles = sorted(root.glob("refs*.p")) if not expressions else []
    if path.suffix in (".p", ".pkl", ".pickle") or (pickles and not path.is_file()):
        raise UserError(
            f"{pickles[0] if pickles else path} is a pickle, which can run any code when loaded and is not read here: "
            f'if you trust it, convert it once with python -c "{_CONVERT}"'
        )
    return path


def _read_references(path: Path) -> list[dict[str, Any]]:
    try:
        references: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for ref in references:
            if not {"ref_id", "ann_id", "image_id", "split"} <= ref.keys() or not ref["sentences"]:
                raise KeyError
            if not all(said.get("sent") or said.get("raw") for said in ref["sentences"]):
                raise KeyError
    except FileNotFoundError as error:
        raise UserError(f"the expressions {path} do not exist: {GIVE_EXPRESSIONS}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a list of references: each needs ref_id, ann_id, image_id, split and sentences with sent"
        ) from error
    return references
