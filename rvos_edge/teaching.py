"""Queries learned from shown frames: the language vectors are inputs of the network, and they alone are taught.

The graph ``teach`` of the bundle gives loss and gradient for one frame; the optimiser is a few lines of NumPy. Both run
on the host, in ONNX Runtime, whatever runs the network: no engine is built anew, and no other weight changes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.manifest import GATING_GRAPH, GRADIENT, LOSS, PRESENCE_OUTPUT, TARGET, TEACH_GRAPH, WEIGHT
from rvos_edge.pictures import as_frame
from rvos_edge.preprocess import Placement, place
from rvos_edge.queries import Query, TaughtQuery, Vectors, float_vectors
from rvos_edge.text import check_queries
from rvos_edge.views import make_views

Features = Mapping[str, NDArray[Any]]
"""Inputs of ``gating`` for one frame other than the language vectors, on the host."""

_STEPS, _LOOK, _PATIENCE = 120, 10, 2
"""Most steps, steps between two looks at what was left out, and looks without a gain after which learning from several
pictures ends. Chosen on pictures of words that training never says and on videos of a fold."""
_LEAST_GAIN, _LEAST_SHARE = 0.1, 0.5
"""Gain of IoU on a picture that was left out from which the sentence is given up: one picture of a kind of thing is a
small sample. Chosen on pictures of words that training never says. This share of the sentence's own IoU is enough: a
sentence that finds next to nothing is no loss. In one clip the object is the same, and any gain counts."""
_RATE, _DECAYS = 0.05, (0.9, 0.999)
"""Adam's."""
_CLIP_RATE, _CLIP_STEPS, _MORE = 0.1, 80, 160
"""In a clip, where the object is the same: Adam's rate, and steps without the frame that is left out and with it from
there on. The IoU on that one frame wavers while other frames gain, so learning does not end early; from a single frame
it takes ``_STEPS``. Chosen on two folds."""
_NICENESS = 10
_CANDIDATES = ("the moving object", "a person", "an animal", "a vehicle", "a thing")
"""Sentences to start from where none is given; the one that fits best is taken."""


@dataclass(frozen=True)
class Lesson:
    """Features of a frame and what is wanted on it: share of object in each pixel of the decoder's output, and weight,
    0 where nothing is known, both float32 [1,1,h,w].
    """

    features: Features
    target: NDArray[np.float32]
    weight: NDArray[np.float32]


class Learner(Protocol):
    """The part of a segmenter that teaching uses."""

    @property
    def bundle(self) -> Bundle: ...

    def features(self, frame: NDArray[np.uint8], previous: NDArray[np.uint8] | None = None) -> Features: ...

    def encode(self, sentences: Sequence[str]) -> dict[str, NDArray[np.float32]]: ...


class Teacher:
    """The graphs ``teach`` and ``gating`` on the host.

    Raises:
        UserError: The bundle has no ``teach``.

    Attributes:
        stopped: Set it, from any thread, to end what is being learned with an error.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = 1) -> None:
        self.stopped = False
        graphs = bundle.manifest.graphs
        if TEACH_GRAPH not in graphs:
            raise UserError(
                f"{bundle.path} has no graph 'teach', without which no query can learn; export the bundle again."
            )
        from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend  # here: another backend may do without it

        backend = OnnxRuntimeBackend(device="cpu", threads=threads)
        self._teach_spec, self._gating_spec = graphs[TEACH_GRAPH], graphs[GATING_GRAPH]
        self._teach = backend.load_host(bundle.graph_path(TEACH_GRAPH), self._teach_spec)
        self._gating = backend.load_host(bundle.graph_path(GATING_GRAPH), self._gating_spec)
        self.learned = tuple(tensor.name for tensor in self._teach_spec.inputs if tensor.name.startswith("lang"))
        shape = next(tensor.shape for tensor in self._teach_spec.inputs if tensor.name == TARGET)
        self.grid = int(shape[2]), int(shape[3])

    def lesson(self, features: Features, mask: NDArray[Any], placement: Placement) -> Lesson:
        """A lesson of a mask of the frame, bool or 0..1 [H,W] at any resolution; padding does not count."""
        self._go_on()
        rows, columns = placement.on(self.grid)
        target, weight = (np.zeros((1, 1, *self.grid), np.float32) for _ in range(2))
        extent = columns.stop - columns.start, rows.stop - rows.start
        target[0, 0, rows, columns] = cv2.resize(mask.astype(np.float32), extent, interpolation=cv2.INTER_AREA)
        weight[0, 0, rows, columns] = 1
        return Lesson(features, target, weight)

    def judge(self, lesson: Lesson, vectors: Vectors) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Loss, and its gradient in each language vector."""
        self._go_on()
        given = {**lesson.features, TARGET: lesson.target, WEIGHT: lesson.weight}
        given |= {name: vectors[name][None] for name in self.learned}
        inputs = {tensor.name: given[tensor.name].astype(np.float32, copy=False) for tensor in self._teach_spec.inputs}
        outputs = self._teach.run(inputs)
        gradient = {name: outputs[f"{GRADIENT}{name.removeprefix('lang')}"][0] for name in self.learned}
        return float(outputs[LOSS][0]), gradient

    def answer(self, features: Features, stacked: Vectors) -> dict[str, NDArray[np.float32]]:
        """Outputs of ``gating`` for language vectors [Q,c_i]: the decoder's margin [Q,h,w] under "margin", and more."""
        given = {**features, **stacked}
        inputs = {
            tensor.name: given[tensor.name].astype(tensor.dtype, copy=False) for tensor in self._gating_spec.inputs
        }
        outputs = self._gating.run(inputs)
        margin = next(tensor.name for tensor in self._gating_spec.outputs if len(tensor.shape) == 3)
        return {**outputs, "margin": outputs[margin].astype(np.float32)}

    def iou(self, lesson: Lesson, vectors: Vectors) -> float:
        """IoU of the answer with the lesson's target where its weight is not zero; 1 where both are empty."""
        margin = self.answer(lesson.features, {name: vector[None] for name, vector in vectors.items()})["margin"][0]
        answer, truth = margin > 0, lesson.target[0, 0] > 0.5
        counted = lesson.weight[0, 0] > 0
        union = np.count_nonzero((answer | truth) & counted)
        return np.count_nonzero(answer & truth & counted) / union if union else 1.0

    def learn(
        self,
        lessons: Sequence[Lesson],
        start: Vectors,
        *,
        steps: int = _STEPS,
        rate: float = _RATE,
        watched: Sequence[Lesson] = (),
        patience: int = _PATIENCE,
    ) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Descend from ``start``, all language vectors of a query, with Adam, one lesson a step in turn.

        Where the ``watched`` lessons, which are left out, are answered best is where it stops, and after ``patience``
        looks at them without a gain it ends. Returns the vectors, and the steps that led to them.
        """
        vectors = {name: vector.astype(np.float32) for name, vector in start.items()}
        mean = {name: np.zeros_like(vectors[name]) for name in self.learned}
        square = {name: np.zeros_like(vectors[name]) for name in self.learned}
        best, chosen, taken = self._mean_iou(watched, vectors), dict(vectors), 0
        first, second = _DECAYS
        for step in range(1, steps + 1):
            _, gradient = self.judge(lessons[(step - 1) % len(lessons)], vectors)
            for name in self.learned:
                mean[name] = first * mean[name] + (1 - first) * gradient[name]
                square[name] = second * square[name] + (1 - second) * gradient[name] ** 2
                moved = mean[name] / (1 - first**step) / (np.sqrt(square[name] / (1 - second**step)) + 1e-8)
                vectors[name] = (vectors[name] - rate * moved).astype(np.float32)
            if watched and step % _LOOK == 0:
                iou = self._mean_iou(watched, vectors)
                if iou > best:
                    best, chosen, taken = iou, dict(vectors), step
                elif step >= taken + _LOOK * patience:
                    break
        return (chosen, taken) if watched else (vectors, steps)

    def _go_on(self) -> None:
        if self.stopped:
            raise UserError("the learning was stopped; teach it again.")

    def _mean_iou(self, lessons: Sequence[Lesson], vectors: Vectors) -> float:
        return float(np.mean([self.iou(lesson, vectors) for lesson in lessons])) if lessons else 0.0


def lower_priority() -> None:
    """Lower the priority of the thread that learns: the stream comes first. Linux alone has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def teach(
    learner: Learner,
    frames: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_] | None],
    *,
    like: Query = "",
    name: str = "",
    previous: Sequence[NDArray[np.uint8] | None] | None = None,
    teacher: Teacher | None = None,
) -> TaughtQuery:
    """Teach a query an object that is shown; ``Segmenter.teach`` calls it.

    With several frames one is left out of learning, with one frame two views of it are: learning stops where those are
    answered best, and a result that answers them hardly better than the sentence is not kept.

    Args:
        frames: uint8 [H,W,3] BGR each.
        masks: bool [H,W] of each frame's size; None or an empty mask where the object is absent.
        like: A sentence or a taught query to start from; without one a general sentence that fits best.
        previous: The frames just before, uint8 [H,W,3], for the flow; None where unknown. Frames that have one are of
            one clip, others are pictures of a kind of thing, for which a small gain is not enough.

    Raises:
        UserError: There are no frames, sizes differ, no mask shows anything, or the bundle has no graph ``teach``.
    """
    shown = _checked(frames, masks, previous)
    teacher = teacher or Teacher(learner.bundle, threads=None)  # nobody else waits for the cores
    given = like.sentence if isinstance(like, TaughtQuery) else like
    flips = not any(word in given.split() for word in ("left", "right"))
    size = learner.bundle.manifest.size
    views = [
        [
            teacher.lesson(learner.features(view.frame, view.previous), view.mask, place(view.mask.shape, size))
            for view in make_views(frame, mask, before, flips=flips, many=bool(mask.any()))
        ]
        for frame, mask, before in shown
    ]
    present = [index for index, (_, mask, _) in enumerate(shown) if mask.any()]
    sentence, start = _start(learner, teacher, like, [views[index][0] for index in present])
    several = len(present) > 1
    if several:
        left = present[len(present) // 2]
        watched = [views[left][0]]
        lessons = _in_turn([lessons for index, lessons in enumerate(views) if index != left])
    else:
        (only,) = present
        watched = views[only][2:]
        lessons = _in_turn([lessons if index != only else lessons[:2] for index, lessons in enumerate(views)])
    clip = any(previous is not None for _, _, previous in shown)
    most = _CLIP_STEPS if clip and several else _STEPS
    # Two views of one frame waver before they gain: it is learned to the end, and the best step kept.
    how: dict[str, Any] = {"patience": most} if clip or not several else {}
    how |= {"rate": _CLIP_RATE} if clip else {}
    learned, steps = teacher.learn(lessons, start, steps=most, watched=watched, **how)
    before, after = (float(np.mean([teacher.iou(one, each) for one in watched])) for each in (start, learned))
    if several and after < before + (0.0 if clip else min(_LEAST_GAIN, _LEAST_SHARE * before)):
        learned, steps, after = dict(start), 0, before
    if steps and several and clip:
        learned, _ = teacher.learn(_in_turn(views), learned, steps=_MORE, rate=_CLIP_RATE)
    elif steps and several:
        # The pictures that were left out are learned from too, for as many steps a picture.
        learned, _ = teacher.learn(_in_turn(views), start, steps=round(steps * len(present) / (len(present) - 1)))
    kept = {name: learned[name] for name in teacher.learned}
    return TaughtQuery(
        sentence=sentence,
        vectors=kept,
        network=learner.bundle.manifest.identity,
        name=name,
        shots=len(present),
        j=after,
        sentence_j=before,
        presence_shift=_presence_shift(teacher, learned, views, present),
    )


def _checked(
    frames: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_] | None],
    previous: Sequence[NDArray[np.uint8] | None] | None,
) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8] | None]]:
    earlier = [None] * len(frames) if previous is None else list(previous)
    if not len(frames):
        raise UserError("no frame is shown; give at least one, with the mask of the object.")
    if not len(frames) == len(masks) == len(earlier):
        raise UserError(
            f"{len(frames)} frames come with {len(masks)} masks; give one for each, None where it is absent."
        )
    shown = []
    for index, (frame, mask, before) in enumerate(zip(frames, masks, earlier, strict=True)):
        frame = as_frame(frame)
        size = frame.shape[:2]
        mask = np.zeros(size, np.bool_) if mask is None else np.asarray(mask) > 0
        if mask.shape != size:
            raise UserError(f"mask {index} is {list(mask.shape)} and its frame {list(size)}; give masks of that size.")
        if before is not None and before.shape[:2] != size:
            raise UserError(f"the frame before frame {index} has another size; leave it out.")
        shown.append((frame, mask, before))
    if not any(mask.any() for _, mask, _ in shown):
        raise UserError("no mask shows the object; give at least one frame that it is in.")
    return shown


def _start(
    learner: Learner, teacher: Teacher, like: Query, lessons: Sequence[Lesson]
) -> tuple[str, dict[str, NDArray[np.float32]]]:
    """The sentence to start from, and the vectors."""
    if isinstance(like, TaughtQuery):
        return like.sentence, {**float_vectors(learner.encode([like.sentence]), 0), **like.vectors}
    sentences = check_queries([like]) if like else _CANDIDATES
    stacked = learner.encode(sentences)
    each = [float_vectors(stacked, row) for row in range(len(sentences))]
    chosen = 0
    if len(each) > 1:
        losses = [sum(teacher.judge(lesson, vectors)[0] for lesson in lessons) for vectors in each]
        chosen = int(np.argmin(losses))
    return sentences[chosen], each[chosen]


def _in_turn(views: Sequence[Sequence[Lesson]]) -> list[Lesson]:
    """First views of all frames, then second ones, and so on."""
    most = max(map(len, views), default=0)
    return [lessons[number] for number in range(most) for lessons in views if number < len(lessons)]


def _presence_shift(
    teacher: Teacher, vectors: Vectors, views: Sequence[Sequence[Lesson]], present: Sequence[int]
) -> float:
    """Shift of the presence logit that puts the shown frames on the right side of one half; 0 without presence."""
    stacked = {name: vector[None] for name, vector in vectors.items()}
    logits = []
    for lessons in views:
        outputs = teacher.answer(lessons[0].features, stacked)
        if PRESENCE_OUTPUT not in outputs:
            return 0.0
        chance = float(np.clip(outputs[PRESENCE_OUTPUT].reshape(-1)[0], 1e-4, 1 - 1e-4))
        logits.append(np.log(chance / (1 - chance)))
    there = [logits[index] for index in present]
    absent = [logit for index, logit in enumerate(logits) if index not in present]
    shift = -(np.median(there) + np.median(absent)) / 2 if absent else max(0.0, 1.0 - float(np.median(there)))
    return float(np.clip(shift, -3, 3))
