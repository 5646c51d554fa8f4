"""What devices could do at best: dense arithmetic and memory bandwidth, from the vendors' own figures.

Vendors print the largest number they can: sparse, and in the narrowest type. Here everything is dense. Where a vendor
gives no dense float16 figure it follows from the one that is given: sparsity doubles, and so does each halving of the
type, so "67 TOPS" (int8, sparse) is 67 / 2 / 2 = 16.75 TFLOPS in dense float16. ``basis`` says so for each device.

- ``float16``: tensor cores, adding up in float16, the faster way where there are two; GeForce cards add up in float32
  at half that rate. The Jetson Nano has no tensor cores.
- ``float32``: the CUDA cores.
- ``tf32``: tensor cores on float32 numbers of which they read 19 bits, as TensorRT does unless told otherwise.
- A Jetson's figures are for its largest power mode, and for the GPU alone, without DLA.

The figures were compared with what is published elsewhere (published clocks times cores; NVIDIA's own table of
the AGX Orin's GPU); nothing of it was measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvos_edge.bundle import Arithmetic

_MODULES = "https://developer.nvidia.com/embedded/jetson-modules"
_GEFORCE = "https://www.nvidia.com/en-us/geforce/graphics-cards/compare/"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_BLACKWELL = "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"


@dataclass(frozen=True)
class DevicePeak:
    """The roof of a device.

    Attributes:
        key: For the command line.
        name: For people.
        float16: Dense TFLOPS in float16.
        float32: TFLOPS in float32.
        tf32: Dense TFLOPS of float32 numbers on tensor cores; None without.
        bandwidth: GB/s from and to memory.
        basis: How the float16 figure follows from the vendor's.
        source: Where the vendor prints it.
        bfloat16: Dense TFLOPS in bfloat16; None where it is not known, and float32 is taken.
    """

    key: str
    name: str
    float16: float
    float32: float
    tf32: float | None
    bandwidth: float
    basis: str
    source: str
    bfloat16: float | None = None

    def flops(self, arithmetic: Arithmetic) -> float:
        """FLOP/s at most in an arithmetic."""
        single = max(self.float32, self.tf32 or 0.0)
        rates = {"float32": single, "float16": self.float16, "bfloat16": self.bfloat16 or single}
        return 1e12 * rates[arithmetic]


DEVICES = (
    DevicePeak(
        key="jetson-nano",
        name="Jetson Nano",
        float16=0.472,
        float32=0.236,
        tf32=None,
        bandwidth=25.6,
        basis="472 GFLOPS float16 as printed: 128 CUDA cores, 0.92 GHz",
        source=_MODULES,
    ),
    DevicePeak(
        key="xavier-nx",
        name="Jetson Xavier NX",
        float16=6.76,
        float32=0.845,
        tf32=None,
        bandwidth=59.7,
        basis="48 tensor cores x 128 FLOP x 1.1 GHz; 384 CUDA cores",
        source=_MODULES,
    ),
    DevicePeak(
        key="orin-nano",
        name="Jetson Orin Nano 8GB (Super)",
        float16=16.7,
        float32=2.09,
        tf32=8.36,
        bandwidth=102.0,
        basis="67 TOPS sparse int8 / 4; 32 tensor cores x 512 FLOP x 1.02 GHz",
        source=_MODULES,
        bfloat16=16.7,
    ),
    DevicePeak(
        key="orin-nx",
        name="Jetson Orin NX 16GB (Super)",
        float16=19.2,
        float32=2.40,
        tf32=9.61,
        bandwidth=102.4,
        basis="GPU alone: 32 tensor cores x 512 FLOP x 1.173 GHz (157 TOPS sparse int8 counts two DLA)",
        source=_MODULES,
        bfloat16=19.2,
    ),
    DevicePeak(
        key="agx-orin",
        name="Jetson AGX Orin 64GB",
        float16=42.6,
        float32=5.3,
        tf32=21.3,
        bandwidth=204.8,
        basis="GPU alone: 171 TOPS sparse int8 / 4",
        source="https://github.com/NVIDIA/Deep-Learning-Accelerator-SW",
        bfloat16=42.6,
    ),
    DevicePeak(
        key="thor",
        name="Jetson AGX Thor (T5000)",
        float16=258.8,
        float32=8.06,
        tf32=129.4,
        bandwidth=273.0,
        basis="2070 TFLOPS sparse FP4 / 8",
        source=_MODULES,
        bfloat16=258.8,
    ),
    DevicePeak(
        key="rtx-3060",
        name="GeForce RTX 3060 12GB",
        float16=51.2,
        float32=12.7,
        tf32=12.8,
        bandwidth=360.0,
        basis="102 tensor TFLOPS sparse float16 / 2",
        source=_GEFORCE,
        bfloat16=25.6,
    ),
    DevicePeak(
        key="rtx-4070",
        name="GeForce RTX 4070",
        float16=116.6,
        float32=29.1,
        tf32=29.1,
        bandwidth=504.0,
        basis="466 TOPS sparse FP8 / 4",
        source=_GEFORCE,
        bfloat16=58.3,
    ),
    DevicePeak(
        key="rtx-4090",
        name="GeForce RTX 4090",
        float16=330.3,
        float32=82.6,
        tf32=82.6,
        bandwidth=1008.0,
        basis="330.3 TFLOPS dense as printed; 1321 TOPS sparse FP8 / 4",
        source=_ADA,
        bfloat16=165.2,
    ),
    DevicePeak(
        key="rtx-5090",
        name="GeForce RTX 5090",
        float16=419.0,
        float32=104.8,
        tf32=104.8,
        bandwidth=1792.0,
        basis="3352 TOPS sparse FP4 / 8",
        source=_BLACKWELL,
        bfloat16=209.5,
    ),
    DevicePeak(
        key="h100",
        name="H100 SXM",
        float16=989.4,
        float32=66.9,
        tf32=494.7,
        bandwidth=3350.0,
        basis="1979 TFLOPS sparse float16 / 2",
        source="https://www.nvidia.com/en-us/data-center/h100/",
        bfloat16=989.4,
    ),
)
