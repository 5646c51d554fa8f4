"""Detection of an NVIDIA GPU through the library of the driver, without any Python package."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """Name and compute capability of a GPU, such as ``Orin`` and ``87``."""

    name: str
    capability: str


def find_gpu(index: int = 0) -> Gpu | None:
    """Return a GPU by its index, or None without a driver or that device."""
    for library in _LIBRARIES:
        try:
            cuda = ctypes.CDLL(library)
        except OSError:
            continue
        return _ask(cuda, index)
    return None


def _ask(cuda: ctypes.CDLL, index: int) -> Gpu | None:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else Gpu(name.value.decode(), f"{major.value}{minor.value}")
