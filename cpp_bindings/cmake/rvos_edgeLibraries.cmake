# Imported targets for libraries that have no CMake package: rvos_edge_onnxruntime and rvos_edge_tensorrt. Used by the
# build and by the installed package, so that an installation holds no absolute path of them.

function(rvos_edge_import target header library)
  if(header AND library AND NOT TARGET ${target})
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES
      IMPORTED_LOCATION "${library}" INTERFACE_INCLUDE_DIRECTORIES "${header}")
  endif()
endfunction()

# A release of ONNX Runtime, or Debian's libonnxruntime-dev. The wheel on PyPI has no headers.
macro(rvos_edge_find_onnxruntime)
  find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
    HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT
    PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
  find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT PATH_SUFFIXES lib)
  rvos_edge_import(rvos_edge_onnxruntime "${ONNXRUNTIME_INCLUDE_DIR}" "${ONNXRUNTIME_LIBRARY}")
endmacro()

# TensorRT or TensorRT-RTX, whichever has its headers here, and CUDA's runtime.
macro(rvos_edge_find_tensorrt)
  find_path(TENSORRT_INCLUDE_DIR NvInfer.h HINTS ${TENSORRT_ROOT} ENV TENSORRT_ROOT PATH_SUFFIXES include)
  find_library(TENSORRT_LIBRARY NAMES nvinfer tensorrt_rtx HINTS ${TENSORRT_ROOT} ENV TENSORRT_ROOT PATH_SUFFIXES lib)
  if(TENSORRT_INCLUDE_DIR AND TENSORRT_LIBRARY)
    find_package(CUDAToolkit QUIET)
    rvos_edge_import(rvos_edge_tensorrt "${TENSORRT_INCLUDE_DIR}" "${TENSORRT_LIBRARY}")
  endif()
endmacro()
