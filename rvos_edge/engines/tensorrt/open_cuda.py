"""Choice between the Python packages for CUDA."""

from __future__ import annotations

from importlib import import_module

from rvos_edge.engines.tensorrt.cuda import Cuda
from rvos_edge.engines.tensorrt.pycuda import PyCuda
from rvos_edge.errors import UserError


def open_cuda(index: int = 0) -> Cuda:
    """Open a device by its index through cuda-bindings or, if that is missing or too new for the driver, pycuda.

    Raises:
        UserError: Neither package is installed, or there is no driver or no such device.
    """
    first: UserError | None = None
    for module, make in (("cuda.bindings.runtime", Cuda), ("pycuda.driver", PyCuda)):
        try:
            return make(import_module(module), index)
        except (ImportError, OSError):
            continue
        except UserError as error:
            first = first or error
    raise first or UserError(
        'CUDA for Python is not installed: pip install "rvos-edge[cuda]" (on JetPack 6 then: pip install '
        "\"cuda-bindings<13\"), or use device 'cpu'."
    )
