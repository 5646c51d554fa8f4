"""Peak arithmetic and memory bandwidth of devices: dense, per arithmetic, from the vendors' data sheets.

Vendors print their largest figure: sparse and in the narrowest type. ``devices.json`` holds dense figures. Where a
vendor gives none for float16 it follows from the printed one: sparsity doubles the rate, and so does each halving of
the type, so 67 TOPS (int8, sparse) are 67 / 2 / 2 = 16.75 TFLOPS (float16, dense). ``basis`` states the derivation.

- ``float16``: tensor cores that accumulate in float16; GeForce cards accumulate in float32 at half that rate. The
  Jetson Nano has no tensor cores.
- ``float32``: CUDA cores.
- ``tf32``: tensor cores on float32 operands, of which they read 19 bits; TensorRT's default for float32.
- Jetson figures are those of the largest power mode, for the GPU alone, without DLA.

The figures were checked against published clocks and core counts; none was measured here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rvos_edge.manifest import Arithmetic


@dataclass(frozen=True, kw_only=True)
class DevicePeak:
    """Peak rates of a device: dense TFLOPS by arithmetic, ``bandwidth`` in GB/s.

    ``tf32`` is None without tensor cores; where ``bfloat16`` is unknown the float32 rate applies. ``basis`` is the
    derivation of the float16 figure, ``source`` the page of the data sheet.
    """

    key: str
    name: str
    float16: float
    float32: float
    tf32: float | None = None
    bandwidth: float
    basis: str
    source: str
    bfloat16: float | None = None

    def flops(self, arithmetic: Arithmetic) -> float:
        """Peak FLOP/s in an arithmetic."""
        single = max(self.float32, self.tf32 or 0.0)
        rates = {"float32": single, "float16": self.float16, "bfloat16": self.bfloat16 or single}
        # Tensor cores and VNNI multiply twice as many pairs of eight bits as of sixteen.
        return 1e12 * (2 * max(rates.values()) if arithmetic == "int8" else rates[arithmetic])


DEVICES = tuple(
    DevicePeak(**row) for row in json.loads(Path(__file__).with_name("devices.json").read_text(encoding="utf-8"))
)
"""The devices of ``devices.json``, from the slowest to the fastest of each kind."""
