"""Checkpoints and bundles behind one interface."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query
from rvos_edge.segmenter import Segmenter
from rvos_edge.trainer.checkpoint import load_checkpoint, read_model_config
from rvos_edge.trainer.predictor import TorchSegmenter

PredictorQuery = Query
"""A sentence or a taught query; ``readers.base.Query`` is an expression of a data set."""


class Predictor(Protocol):
    """Segments the frames of a video by its queries."""

    def reset(self) -> None:
        """Forget the previous frame; the queries stay."""

    def set_queries(self, queries: Sequence[PredictorQuery]) -> None:
        """Set the queries of the following frames."""

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_]],
        previous: Sequence[NDArray[np.uint8] | None],
        sentence: str,
    ) -> PredictorQuery:
        """Teach a query by frames and masks, as ``Segmenter.teach``.

        Raises:
            UserError: The predictor does not support it.
        """

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Frame uint8 [H,W,3] BGR -> masks bool [Q,H,W] at the frame's size."""


class PresencePredictor(Predictor, Protocol):
    """A ``Predictor`` that may also say whether a thing is there."""

    presence: NDArray[np.float32] | None
    """Probability that what each query names is in the last frame, [Q]; None where the model does not say."""


class BundlePredictor:
    """A bundle's runtime as a ``Predictor``."""

    def __init__(self, segmenter: SegmenterProtocol) -> None:
        self.segmenter = segmenter
        self.reset, self.set_queries = segmenter.reset, segmenter.set_queries
        self.presence: NDArray[np.float32] | None = None

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_]],
        previous: Sequence[NDArray[np.uint8] | None],
        sentence: str,
    ) -> PredictorQuery:
        """Teach a query by frames and masks, as ``Segmenter.teach``.

        Raises:
            UserError: The segmenter does not support it.
        """
        if not isinstance(self.segmenter, Segmenter):
            raise UserError("--teach needs the Python runtime; leave --runtime out.")
        return self.segmenter.teach(frames, masks, like=sentence, previous=previous)

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Frame uint8 [H,W,3] BGR -> masks bool [Q,H,W] at the frame's size."""
        result = self.segmenter.step(frame)
        self.presence = result.presence if self.segmenter.bundle.manifest.has_presence else None
        return result.masks


@contextlib.contextmanager
def open_predictor(
    checkpoint: Path | None,
    bundle: Path | None,
    *,
    backend: str,
    adapt: str = "off",
    size: tuple[int, int] | Literal["original"] | None = None,
) -> Iterator[PresencePredictor]:
    """Load a checkpoint or a bundle, whichever is not None; ``backend`` and ``adapt`` are the bundle's.

    Args:
        size: Height and width of the network's input; "original" for each frame's own, with a checkpoint; None for the
            size that it was trained with or exported for.

    Raises:
        UserError: The directory is missing or damaged, or has no such size.
    """
    if checkpoint is not None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        yield TorchSegmenter(load_checkpoint(checkpoint), size=size, device=device)
        return
    if size == "original":
        raise UserError("--size original is for checkpoints; give one of the bundle's sizes, or --checkpoint.")
    yield BundlePredictor(open_segmenter(bundle, size=size, backend=backend, adapt=adapt))


def model_hash(checkpoint: Path | None, bundle: Path | None) -> str:
    """SHA-256 of a checkpoint's files, or of a bundle's manifest, which holds the hashes of its graphs.

    Raises:
        UserError: A file is missing.
    """
    if checkpoint is not None:
        read_model_config(checkpoint)  # which says what is wrong with a folder
    names = ("manifest.json",) if bundle is not None else ("config.json", "model.safetensors", "tokenizer.json")
    folder = bundle or checkpoint or Path()
    digest = hashlib.sha256()
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            kind = "bundle" if bundle is not None else "checkpoint"
            raise UserError(f"{folder} is not a {kind}: {name} cannot be read; give its directory.") from error
    return digest.hexdigest()
