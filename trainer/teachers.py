"""Teachers: networks that draw the masks of queries in videos, as training data for a smaller one.

A teacher is a bundle, by name or folder, or a network of transformers whose weights are on this machine:

- SAM 3 on videos, with its own text model or LiteText's (``Sam3VideoModel``);
- SAM 3 or SAM 3 LiteText frame by frame (``Sam3Model``, ``Sam3LiteTextModel``);
- a detector (Grounding DINO, OmDet-Turbo and others that take text) whose boxes SAM 2 follows, written
  ``DETECTOR+TRACKER``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from rvos_edge.catalogue import find_bundle
from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query, TaughtQuery

TEACHERS = {
    "sam3": "facebook/sam3",
    "sam3-litetext": "vil-uob/sam3-litetext-s0",
    "grounding-dino": "IDEA-Research/grounding-dino-base+facebook/sam2.1-hiera-large",
    "omdet-turbo": "omlab/omdet-turbo-swin-tiny-hf+facebook/sam2.1-hiera-large",
}
"""Names of weights on the Hugging Face Hub."""
_LOOK = 10
"""Frames between two that a detector looks at."""
_DETECTED, _SAME = 0.35, 0.7
"""Score from which a detector's box is believed (Grounding DINO's usual value), and overlap of boxes of one object."""


class Labels(NamedTuple):
    """Masks of the Q queries in a frame, bool [Q,H,W], and the confidence 0..1 in each, float32 [Q].

    The confidence in an empty mask is that the object is absent.
    """

    masks: NDArray[np.bool_]
    confidence: NDArray[np.float32]


Teacher = Callable[[Sequence[NDArray[np.uint8]]], Iterator[Labels]]
"""The labels of consecutive frames of one size, uint8 [H,W,3] BGR, independent of what was labelled before."""


def open_teacher(name: str, queries: Sequence[Query], *, device: str = "auto") -> Teacher:
    """Open a teacher of the queries.

    Args:
        name: A bundle's name or folder; a name in ``TEACHERS``; a folder or a name of the Hub; two with a plus sign.

    Raises:
        UserError: The weights are not on this machine or are of another kind, or a taught query is put to a teacher
            that is no bundle.
    """
    bundle = find_bundle(name)
    if (bundle / "manifest.json").is_file():
        segmenter = open_segmenter(bundle, device=device, min_presence=0.0)
        segmenter.set_queries(queries)
        return _BundleTeacher(segmenter)
    sentences = [query for query in queries if not isinstance(query, TaughtQuery)]
    if len(sentences) < len(queries):
        raise UserError(f"--teacher {name} takes sentences; taught queries (@FILE) are for a bundle, such as edge.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    detector, plus, tracker = TEACHERS.get(name, name).partition("+")
    if plus:
        return _DetectorTeacher(detector, tracker, sentences, device)
    from transformers import AutoConfig  # takes seconds, and a bundle does without

    kind = _load(AutoConfig, detector).model_type
    if kind == "sam3_video":
        return _VideoTeacher(detector, sentences, device)
    if kind in ("sam3", "sam3_lite_text"):
        return _ImageTeacher(detector, sentences, device)
    raise UserError(
        f"--teacher {name} is a network of the kind {kind}; give a bundle, SAM 3, or DETECTOR+TRACKER with SAM 2."
    )


class _BundleTeacher:
    def __init__(self, segmenter: SegmenterProtocol) -> None:
        self._segmenter = segmenter

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
        self._segmenter.reset()
        for frame in frames:
            result = self._segmenter.step(frame)
            here = result.presence >= 0.5
            sure = np.where(here, np.minimum(result.presence, result.scores), 1 - result.presence)
            yield Labels(result.masks & here[:, None, None], sure.astype(np.float32))


class _VideoTeacher:
    """SAM 3 on videos: every object that the query names, followed from where it is detected."""

    def __init__(self, name: str, sentences: Sequence[str], device: str) -> None:
        from transformers import Sam3VideoModel, Sam3VideoProcessor

        self._sentences = list(sentences)
        self._processor = _load(Sam3VideoProcessor, name)
        self._model = _load(Sam3VideoModel, name).to(device)

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
        model, count = self._model, len(self._sentences)
        session = self._processor.init_video_session(
            video=_rgb(frames), inference_device=model.device, video_storage_device="cpu", dtype=model.dtype
        )
        self._processor.add_text_prompt(session, self._sentences)
        # The detector answers the queries one by one, frame after frame; of absent ones nothing else tells how sure.
        best: list[float] = []
        hook = model.detector_model.register_forward_hook(lambda _, __, output: best.append(_detected(output)))
        try:
            for output in model.propagate_in_video_iterator(session):
                found = self._processor.postprocess_outputs(session, output)
                ids = found["object_ids"].tolist()
                tracked = output.obj_id_to_tracker_score or {}
                scores = [
                    min(float(score), tracked.get(number, 1.0))
                    for number, score in zip(ids, found["scores"].tolist(), strict=True)
                ]
                named = found["prompt_to_obj_ids"]
                rows = [[ids.index(number) for number in named.get(text, ())] for text in self._sentences]
                detected = best[output.frame_idx * count :]
                yield _union(found["masks"], rows, scores, detected)
        finally:
            hook.remove()


class _ImageTeacher:
    """SAM 3 or SAM 3 LiteText, one frame at a time."""

    def __init__(self, name: str, sentences: Sequence[str], device: str) -> None:
        from transformers import AutoModel, AutoProcessor

        self._processor = _load(AutoProcessor, name)
        self._model = _load(AutoModel, name).eval().to(device)
        # As long as the text models are trained with.
        self._texts = [
            self._processor.tokenizer(text, return_tensors="pt", padding="max_length", max_length=32).to(device)
            for text in sentences
        ]

    @torch.inference_mode()
    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
        model = self._model
        for frame in _rgb(frames):
            pixels = self._processor.image_processor(frame, return_tensors="pt").pixel_values
            seen = model.get_vision_features(pixel_values=pixels.to(model.device, model.dtype))
            # Without any object the network's masks keep their own size.
            masks = [torch.zeros(0, *frame.shape[:2], dtype=torch.bool)]
            scores: list[float] = []
            rows: list[list[int]] = []
            best: list[float] = []
            for text in self._texts:
                output = model(vision_embeds=seen, input_ids=text.input_ids, attention_mask=text.attention_mask)
                (found,) = self._processor.post_process_instance_segmentation(
                    output, threshold=0.5, target_sizes=[frame.shape[:2]]
                )
                rows.append(list(range(len(scores), len(scores) + len(found["scores"]))))
                if len(found["scores"]):
                    masks.append(found["masks"].bool().cpu())
                scores += found["scores"].tolist()
                best.append(_detected(output))
            yield _union(torch.cat(masks), rows, scores, best)


class _DetectorTeacher:
    """Boxes of a detector on every tenth frame; SAM 2 follows those of the surest one through the frames."""

    def __init__(self, detector: str, tracker: str, sentences: Sequence[str], device: str) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, Sam2VideoModel, Sam2VideoProcessor

        self._sentences = list(sentences)
        self._reader = _load(AutoProcessor, detector)
        self._detector = _load(AutoModelForZeroShotObjectDetection, detector).eval().to(device)
        self._processor = _load(Sam2VideoProcessor, tracker)
        self._tracker = _load(Sam2VideoModel, tracker).eval().to(device)

    @torch.inference_mode()
    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
        shown, device = _rgb(frames), self._tracker.device
        session = self._processor.init_video_session(
            video=shown, inference_device=device, video_storage_device="cpu", dtype=self._tracker.dtype
        )
        masks = np.zeros((len(frames), len(self._sentences), *frames[0].shape[:2]), np.bool_)
        sure = np.zeros(masks.shape[:2], np.float32)
        for row, text in enumerate(self._sentences):
            looks = {index: self._detect(shown[index], text) for index in range(0, len(frames), _LOOK)}
            start, (boxes, scores) = max(looks.items(), key=lambda item: float(item[1][1].max(initial=0)))
            # A score counts as a probability that is .5 where a box is just believed.
            found = min(1.0, float(scores.max(initial=0)) / (2 * _DETECTED))
            sure[:, row] = found if found > 0.5 else 1 - found
            if found > 0.5:
                session.reset_inference_session()
                chosen = boxes[scores > _DETECTED].tolist()
                self._processor.add_inputs_to_inference_session(
                    session, frame_idx=start, obj_ids=list(range(len(chosen))), input_boxes=[chosen]
                )
                for backwards in (False, True):
                    for output in self._tracker.propagate_in_video_iterator(
                        session, start_frame_idx=start, reverse=backwards
                    ):
                        here = output.object_score_logits.float().flatten().sigmoid().cpu()
                        (drawn,) = self._processor.post_process_masks([output.pred_masks], [frames[0].shape[:2]])
                        index = output.frame_idx
                        masks[index, row] = drawn[:, 0].cpu()[here >= 0.5].any(dim=0).numpy()
                        sure[index, row] = min(found, float(torch.maximum(here, 1 - here).min()))
        yield from map(Labels, masks, sure)

    def _detect(self, frame: NDArray[np.uint8], text: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes x0, y0, x1, y1 [N,4] in pixels and their scores [N], one for each object."""
        inputs = self._reader(images=frame, text=[[text]], return_tensors="pt").to(self._detector.device)
        output = self._detector(**inputs)
        (found,) = self._reader.post_process_grounded_object_detection(
            output, threshold=0.0, target_sizes=[frame.shape[:2]]
        )
        boxes, scores = found["boxes"].float().cpu(), found["scores"].float().cpu()
        kept = nms(boxes, scores, _SAME)
        return boxes[kept].numpy(), scores[kept].numpy()


def _rgb(frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]


def _detected(output: Any) -> float:
    """The highest score of SAM 3's detector for a query."""
    return float((output.pred_logits.sigmoid() * output.presence_logits.sigmoid()).max())


def _union(masks: Tensor, rows: Sequence[Sequence[int]], scores: Sequence[float], best: Sequence[float]) -> Labels:
    """The union of each query's objects, as sure as the least sure of them; without any, as sure as none was near.

    ``masks`` [N,H,W] and ``scores`` are the objects', ``rows`` the queries' and ``best`` their best detections.
    """
    drawn = masks.cpu().numpy().astype(np.bool_)
    return Labels(
        np.stack([drawn[list(own)].any(axis=0) for own in rows]),
        np.array(
            [min(scores[index] for index in own) if own else 1 - best[query] for query, own in enumerate(rows)],
            np.float32,
        ),
    )


def _load(kind: Any, name: str) -> Any:
    """``from_pretrained`` of what lies on this machine: nothing is downloaded."""
    try:
        return kind.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        if Path(name).is_dir():
            line = str(error).strip().splitlines()[0]
            raise UserError(f"the teacher {name} cannot be read ({line}); download it again.") from error
        raise UserError(
            f"the teacher {name} is not on this machine (known by name: edge, {', '.join(TEACHERS)}); get it with: "
            f"hf download {name} (where its licence has to be accepted first, on https://huggingface.co/{name}, after: "
            "hf auth login), or give its folder."
        ) from error
