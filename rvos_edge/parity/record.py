"""The reference record ``reference.npz``: tensors that PyTorch computed in float32 when a bundle was exported.

It holds the inputs and outputs of every graph for one frame, and a few frames with their masks, so that any backend can
be verified on its own machine without PyTorch and without the checkpoint. Inputs are stored whole, rounded to eight
bits before PyTorch read them, so that a float16 graph reads the same numbers; outputs are stored as regular samples.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import Bundle, check_file
from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import FRAME_INPUT, QUERIES, TEXT_GRAPH, TensorSpec

FILE = "reference.npz"
_SAMPLES, _OLD_SAMPLES = 1 << 12, 1 << 14
_MOST_BYTES = 1 << 30
"""Size limit of the record in memory; that of ``edge`` has less than 8 MB."""
_IMAGE = f"in/{FRAME_INPUT}"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """A recorded run.

    Attributes:
        inputs: Graph -> name -> array, as the graph reads it.
        outputs: Graph -> name -> float32 ``sample`` of the output.
    """

    source: str
    queries: tuple[str, ...]
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    inputs: Mapping[str, Arrays]
    outputs: Mapping[str, Arrays]

    def save(self, path: Path) -> None:
        """Write the record; a tensor that several graphs read is written once, and a frame as its number."""
        arrays: dict[str, NDArray[Any]] = {
            "source": np.array(self.source),
            "queries": np.array(self.queries),
            "frames": self.frames,
            "masks": np.packbits(self.masks),
        }
        for graph, tensors in self.inputs.items():
            for name, array in tensors.items():
                shared = arrays.setdefault(f"in/{name}", array)
                if shared is not array and not np.array_equal(shared, array):
                    arrays[f"in/{graph}/{name}"] = array
        for graph, tensors in self.outputs.items():
            arrays |= {f"out/{graph}/{name}": array for name, array in tensors.items()}
        for number, frame in enumerate(self.frames):
            if np.array_equal(frame, arrays.get(_IMAGE, ())):
                arrays[_IMAGE] = np.array(number)
        # bzip2 takes a fifth less than NumPy's deflate, a third less of frames; np.load reads it too.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def load_reference(bundle: Bundle) -> Reference:
    """Read the reference record of a bundle.

    Raises:
        UserError: The bundle has none, or it is damaged, too large or does not fit the graphs.
    """
    spec = bundle.manifest.reference
    if spec is None:
        height, width = bundle.manifest.size
        raise UserError(f"{bundle.path} has no reference for {height}x{width}; verify its first size, or export again.")
    check_file(bundle.path, spec.file, spec.sha256, "the reference")
    path = bundle.path / spec.file
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
        with np.load(path, allow_pickle=False) as file:
            return _parse(bundle, file)
    except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
        detail = one_line(error)
        raise UserError(f"{path} cannot be read ({detail}); export the bundle again.") from error


def sample(array: NDArray[Any], most: int = _SAMPLES) -> NDArray[np.float32]:
    """Take at most ``most`` elements at regular places of the flattened array, as float32 [n]."""
    flat = array.reshape(-1)
    if flat.size > most:
        flat = flat[np.linspace(0, flat.size - 1, most).astype(np.int64)]
    return flat.astype(np.float32)


def _parse(bundle: Bundle, file: Mapping[str, NDArray[Any]]) -> Reference:
    queries: Sequence[str] = file["queries"].tolist()
    frames = file["frames"]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries) or not queries:
        raise ValueError("its queries are no list of sentences")
    if frames.dtype != np.uint8 or frames.shape[1:] != (*bundle.manifest.size, 3) or not len(frames):
        raise ValueError(f"its frames are {frames.dtype}{list(frames.shape)}")
    extent = (len(frames), len(queries), *frames.shape[1:3])
    inputs: dict[str, Arrays] = {}
    outputs: dict[str, Arrays] = {}
    for graph, spec in bundle.manifest.graphs.items():
        names = [tensor.name for tensor in spec.inputs]
        keys = {name: f"in/{graph}/{name}" if f"in/{graph}/{name}" in file else f"in/{name}" for name in names}
        read = {name: file[key] for name, key in keys.items()}
        if not read.get(FRAME_INPUT, frames).shape:
            read[FRAME_INPUT] = frames[read[FRAME_INPUT]]
        inputs[graph] = read
        outputs[graph] = {tensor.name: file[f"out/{graph}/{tensor.name}"] for tensor in spec.outputs}
        rows = 1 if graph == TEXT_GRAPH else len(queries)
        for tensor in spec.inputs:
            _check_input(tensor, inputs[graph][tensor.name], rows)
        for tensor in spec.outputs:
            _check_output(tensor, outputs[graph][tensor.name], rows)
    masks = np.unpackbits(file["masks"], count=int(np.prod(extent))).astype(np.bool_).reshape(extent)
    return Reference(str(file["source"]), tuple(queries), frames, masks, inputs, outputs)


def _check_input(tensor: TensorSpec, found: NDArray[Any], queries: int) -> None:
    """Raise ValueError if an input does not fit its specification; the number of tokens is free."""
    fits = found.ndim == len(tensor.shape) and np.can_cast(found.dtype, tensor.dtype, "same_kind")
    for dim, actual in zip(tensor.shape, found.shape, strict=False):
        fits = fits and (dim == "L" or actual == (queries if dim == QUERIES else dim))
    if not fits:
        raise ValueError(f"its input '{tensor.name}' is {found.dtype}{list(found.shape)}")


def _check_output(tensor: TensorSpec, found: NDArray[Any], queries: int) -> None:
    """Raise ValueError if an output is not a sample of the specified tensor."""
    size = math.prod(queries if isinstance(dim, str) else dim for dim in tensor.shape)
    if found.dtype != np.float32 or found.shape not in ((min(size, most),) for most in (_SAMPLES, _OLD_SAMPLES)):
        raise ValueError(f"its output '{tensor.name}' is {found.dtype}{list(found.shape)}")
