#pragma once
#ifdef RVOS_EDGE_WITH_TENSORRT_RTX
#define TRT_MAJOR_RTX 1
#define TRT_MINOR_RTX 7
#define TRT_PATCH_RTX 1
#else
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3
#define NV_TENSORRT_PATCH 0
#endif
