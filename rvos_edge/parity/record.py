"""What PyTorch computed in float32 when a bundle was exported, kept beside the graphs as ``reference.npz``.

One frame's run through every graph, and a few frames with their masks. So any backend can be judged on the machine
where it runs, without PyTorch and without the checkpoint. Inputs are whole, rounded to float16 before PyTorch saw
them, so that a float16 graph reads the very same numbers; of outputs a regular sample is kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import Bundle, check_file
from rvos_edge.errors import UserError

FILE = "reference.npz"
_SAMPLES = 1 << 14

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """A recorded run.

    Attributes:
        source: What the frames are.
        queries: What was asked for.
        frames: uint8 [n,H,W,3] BGR at the network's size, consecutive.
        masks: bool [n,Q,H,W] of PyTorch.
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
        """Write it; a tensor that several graphs read is written once."""
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
        np.savez_compressed(path, allow_pickle=False, **arrays)


def load_reference(bundle: Bundle) -> Reference:
    """The reference of a bundle.

    Raises:
        UserError: It has none, or it is damaged.
    """
    spec = bundle.manifest.reference
    if spec is None:
        height, width = bundle.manifest.size
        raise UserError(f"{bundle.path} has no reference for {height}x{width}; verify its first size, or export again.")
    check_file(bundle.path, spec.file, spec.sha256, "the reference")
    try:
        with np.load(bundle.path / spec.file, allow_pickle=False) as file:
            return _parse(bundle, file)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{bundle.path / spec.file} cannot be read ({error}); export the bundle again.") from error


def sample(array: NDArray[Any]) -> NDArray[np.float32]:
    """At most 16384 elements, float32, at regular places of the flattened array."""
    flat = array.reshape(-1)
    if flat.size > _SAMPLES:
        flat = flat[np.linspace(0, flat.size - 1, _SAMPLES).astype(np.int64)]
    return flat.astype(np.float32)


def _parse(bundle: Bundle, file: Mapping[str, NDArray[Any]]) -> Reference:
    queries: Sequence[str] = file["queries"].tolist()
    frames = file["frames"]
    extent = (len(frames), len(queries), *frames.shape[1:3])
    inputs: dict[str, Arrays] = {}
    outputs: dict[str, Arrays] = {}
    for graph, spec in bundle.manifest.graphs.items():
        names = [tensor.name for tensor in spec.inputs]
        keys = {name: f"in/{graph}/{name}" if f"in/{graph}/{name}" in file else f"in/{name}" for name in names}
        inputs[graph] = {name: file[key] for name, key in keys.items()}
        outputs[graph] = {tensor.name: file[f"out/{graph}/{tensor.name}"] for tensor in spec.outputs}
    masks = np.unpackbits(file["masks"], count=int(np.prod(extent))).astype(np.bool_).reshape(extent)
    return Reference(str(file["source"]), tuple(queries), frames, masks, inputs, outputs)
