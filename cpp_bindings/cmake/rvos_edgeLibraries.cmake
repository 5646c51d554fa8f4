# The libraries of the backends: openvino::runtime, and imported targets for those that have no CMake package,
# rvos_edge_onnxruntime, rvos_edge_tensorrt and rvos_edge_cudart. The build and the installed package both look for them
# here, so that an installation holds no absolute path of them.

# OpenVINO's wheel on PyPI has headers and CMake files: ask Python for its place, unless OpenVINO_DIR is given. -I ignores
# the isolation of pip's builds, because the library must link the OpenVINO that it will run with.
macro(rvos_edge_find_openvino)
  if(NOT OpenVINO_DIR AND NOT DEFINED ENV{OpenVINO_DIR} AND NOT CMAKE_CROSSCOMPILING)
    find_program(rvos_edge_python NAMES "${Python_EXECUTABLE}" python3)
    execute_process(
      COMMAND ${rvos_edge_python} -I -c
              "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
      OUTPUT_VARIABLE rvos_edge_openvino OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(EXISTS "${rvos_edge_openvino}/cmake/OpenVINOConfig.cmake")
      set(OpenVINO_DIR "${rvos_edge_openvino}/cmake" CACHE PATH "Folder of OpenVINOConfig.cmake" FORCE)
    endif()
  endif()
  find_package(OpenVINO QUIET COMPONENTS Runtime)
endmacro()

function(rvos_edge_import target header library)
  if(header AND library AND NOT TARGET ${target})
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES
      IMPORTED_LOCATION "${library}" INTERFACE_INCLUDE_DIRECTORIES "${header}")
  endif()
endfunction()

# A release of ONNX Runtime, or Debian's libonnxruntime-dev. The wheel on PyPI has no headers (tools/onnxruntime_root.sh).
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
  # Not by CMake's FindCUDAToolkit: it runs nvcc, which a sysroot cannot. The link /usr/local/cuda of a copied file
  # system leads to the host's, so the folders with a version are searched as well.
  file(GLOB rvos_edge_cuda_folders "${CMAKE_SYSROOT}/usr/local/cuda-*")
  list(SORT rvos_edge_cuda_folders COMPARE NATURAL ORDER DESCENDING)
  set(rvos_edge_cuda ${CUDAToolkit_ROOT} $ENV{CUDAToolkit_ROOT} $ENV{CUDA_PATH} /usr/local/cuda
    ${rvos_edge_cuda_folders})
  set(rvos_edge_cuda_target "targets/${CMAKE_SYSTEM_PROCESSOR}-linux")
  find_path(CUDART_INCLUDE_DIR cuda_runtime_api.h HINTS ${rvos_edge_cuda}
    PATH_SUFFIXES include ${rvos_edge_cuda_target}/include)
  find_library(CUDART_LIBRARY cudart HINTS ${rvos_edge_cuda}
    PATH_SUFFIXES lib64 lib ${rvos_edge_cuda_target}/lib)
  rvos_edge_import(rvos_edge_tensorrt "${TENSORRT_INCLUDE_DIR}" "${TENSORRT_LIBRARY}")
  rvos_edge_import(rvos_edge_cudart "${CUDART_INCLUDE_DIR}" "${CUDART_LIBRARY}")
endmacro()
