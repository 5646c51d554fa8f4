"""What is judged: a checkpoint or a bundle behind the same three methods."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query
from rvos_edge.segmenter import Segmenter
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.predictor import TorchSegmenter

Asked = Query
"""A sentence or a taught query, as ``set_queries`` takes it; data sets call their expressions queries."""


class Predictor(Protocol):
    """Segments what sentences name, frame after frame of one video."""

    def reset(self) -> None:
        """Forget the video; the next frame is a first frame. The queries stay."""

    def set_queries(self, queries: Sequence[Asked]) -> None:
        """Say what to segment from the next frame on."""

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_]],
        previous: Sequence[NDArray[np.uint8] | None],
        sentence: str,
    ) -> Asked:
        """A query that is taught what the frames show, as ``Segmenter.teach``.

        Raises:
            UserError: This predictor cannot.
        """

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """uint8 [H,W,3] BGR -> bool [Q,H,W] at the frame's size."""


class BundlePredictor:
    """A bundle's runtime as a ``Predictor``; nothing but the masks and the presence is used."""

    def __init__(self, segmenter: SegmenterProtocol) -> None:
        self.segmenter = segmenter
        self.presence: NDArray[np.float32] | None = None

    def reset(self) -> None:
        """Forget the video."""
        self.segmenter.reset()

    def set_queries(self, queries: Sequence[Asked]) -> None:
        """Say what to segment."""
        self.segmenter.set_queries(queries)

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_]],
        previous: Sequence[NDArray[np.uint8] | None],
        sentence: str,
    ) -> Asked:
        """A query that is taught what the frames show."""
        if not isinstance(self.segmenter, Segmenter):
            raise UserError("--teach needs the Python runtime; leave --runtime out.")
        return self.segmenter.teach(frames, masks, like=sentence, previous=previous)

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """uint8 [H,W,3] BGR -> bool [Q,H,W]."""
        result = self.segmenter.step(frame)
        self.presence = result.presence if self.segmenter.bundle.manifest.has_presence else None
        return result.masks


@contextlib.contextmanager
def open_predictor(
    checkpoint: Path | None, bundle: Path | None, *, backend: str, adapt: str = "off"
) -> Iterator[Predictor]:
    """Load the one that is not None; ``backend`` runs a bundle (``engines.registry.BACKENDS``).

    Raises:
        UserError: It is missing or damaged.
    """
    if checkpoint is not None:
        yield TorchSegmenter(load_checkpoint(checkpoint), device="cuda" if torch.cuda.is_available() else "cpu")
        return
    yield BundlePredictor(open_segmenter(bundle, backend=backend, adapt=adapt))


def model_hash(checkpoint: Path | None, bundle: Path | None) -> str:
    """A SHA-256 that changes whenever the model does; a bundle's manifest holds the hashes of its graphs.

    Raises:
        UserError: The files are missing.
    """
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
