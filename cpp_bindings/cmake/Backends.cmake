# Which backends are built: each one is a source file, a definition RVOS_EDGE_WITH_<NAME> and what it links.
# A backend's finder sets <name>_usable; rvos_edge_link_backends then adds it to the library.

# OpenVINO's wheel on PyPI carries headers and CMake files: ask the Python at hand where, unless told. -I looks past the
# isolation of pip's builds: what is linked must be what will be there when it runs.
function(rvos_edge_find_openvino)
  if(NOT OpenVINO_DIR AND NOT DEFINED ENV{OpenVINO_DIR} AND NOT CMAKE_CROSSCOMPILING)
    find_package(Python COMPONENTS Interpreter QUIET)
    if(Python_EXECUTABLE)
      execute_process(
        COMMAND ${Python_EXECUTABLE} -I -c
                "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
        OUTPUT_VARIABLE package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    if(package AND EXISTS "${package}/cmake/OpenVINOConfig.cmake")
      set(OpenVINO_DIR "${package}/cmake" CACHE PATH "Folder of OpenVINOConfig.cmake" FORCE)
    endif()
  endif()
endfunction()

# ONNX Runtime: a release, or Debian's libonnxruntime-dev. Its wheel on PyPI has no headers.
function(rvos_edge_find_onnxruntime)
  find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
    HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT
    PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
  find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT PATH_SUFFIXES lib)
endfunction()

# TensorRT or TensorRT-RTX, whichever the headers found are of, and CUDA's runtime.
function(rvos_edge_find_tensorrt)
  find_path(TENSORRT_INCLUDE_DIR NvInfer.h HINTS ${TENSORRT_ROOT} ENV TENSORRT_ROOT PATH_SUFFIXES include)
  find_library(TENSORRT_LIBRARY NAMES nvinfer tensorrt_rtx HINTS ${TENSORRT_ROOT} ENV TENSORRT_ROOT PATH_SUFFIXES lib)
  if(TENSORRT_INCLUDE_DIR AND TENSORRT_LIBRARY)
    find_package(CUDAToolkit QUIET)
  endif()
endfunction()

function(rvos_edge_insist wanted name usable remedy)
  if(wanted STREQUAL "ON" AND NOT usable)
    message(FATAL_ERROR "rvos_edge: ${name} was asked for and is not found: ${remedy}")
  endif()
endfunction()

if(NOT RVOS_EDGE_OPENVINO STREQUAL "OFF")
  rvos_edge_find_openvino()
  find_package(OpenVINO QUIET COMPONENTS Runtime)
  set(openvino_usable ${OpenVINO_FOUND})
  rvos_edge_insist("${RVOS_EDGE_OPENVINO}" OpenVINO "${openvino_usable}"
    "run pip install openvino in the Python environment that this is built for, or give OpenVINO_DIR")
endif()
if(NOT RVOS_EDGE_ONNXRUNTIME STREQUAL "OFF")
  rvos_edge_find_onnxruntime()
  if(ONNXRUNTIME_INCLUDE_DIR AND ONNXRUNTIME_LIBRARY)
    set(onnxruntime_usable ON)
  endif()
  rvos_edge_insist("${RVOS_EDGE_ONNXRUNTIME}" "ONNX Runtime" "${onnxruntime_usable}"
    "unpack a release of it and give ONNXRUNTIME_ROOT, or install libonnxruntime-dev")
endif()
if(NOT RVOS_EDGE_TENSORRT STREQUAL "OFF")
  rvos_edge_find_tensorrt()
  if(TENSORRT_INCLUDE_DIR AND TENSORRT_LIBRARY AND TARGET CUDA::cudart)
    set(tensorrt_usable ON)
  endif()
  rvos_edge_insist("${RVOS_EDGE_TENSORRT}" "TensorRT with CUDA" "${tensorrt_usable}"
    "give TENSORRT_ROOT and CUDAToolkit_ROOT; on a Jetson both come with JetPack")
endif()

# Says in the log what the library will be able to run.
function(rvos_edge_link_backends target)
  if(openvino_usable)
    target_sources(${target} PRIVATE src/openvino.cpp)
    target_compile_definitions(${target} PRIVATE RVOS_EDGE_WITH_OPENVINO)
    target_link_libraries(${target} PRIVATE openvino::runtime)
    set(RVOS_EDGE_NEEDS_OPENVINO ON PARENT_SCOPE)
    message(STATUS "rvos_edge: OpenVINO ${OpenVINO_VERSION} from ${OpenVINO_DIR}")
  else()
    message(STATUS "rvos_edge: no OpenVINO (pip install openvino, or give -DOpenVINO_DIR)")
  endif()
  if(onnxruntime_usable)
    target_sources(${target} PRIVATE src/onnxruntime.cpp)
    target_compile_definitions(${target} PRIVATE RVOS_EDGE_WITH_ONNXRUNTIME)
    target_include_directories(${target} SYSTEM PRIVATE "${ONNXRUNTIME_INCLUDE_DIR}")
    target_link_libraries(${target} PRIVATE "${ONNXRUNTIME_LIBRARY}")
    message(STATUS "rvos_edge: ONNX Runtime ${ONNXRUNTIME_LIBRARY}")
  else()
    message(STATUS "rvos_edge: no ONNX Runtime (give -DONNXRUNTIME_ROOT)")
  endif()
  if(tensorrt_usable)
    target_sources(${target} PRIVATE src/cuda.cpp src/device.cpp src/engine_cache.cpp src/frames.cpp src/tensorrt.cpp)
    target_compile_definitions(${target} PRIVATE RVOS_EDGE_WITH_TENSORRT)
    file(STRINGS "${TENSORRT_INCLUDE_DIR}/NvInferVersion.h" rtx REGEX "define TRT_MAJOR_RTX")
    if(rtx)
      target_compile_definitions(${target} PRIVATE RVOS_EDGE_WITH_TENSORRT_RTX)
    endif()
    target_include_directories(${target} SYSTEM PRIVATE "${TENSORRT_INCLUDE_DIR}")
    target_link_libraries(${target} PRIVATE "${TENSORRT_LIBRARY}" CUDA::cudart)
    set(RVOS_EDGE_NEEDS_CUDA ON PARENT_SCOPE)
    message(STATUS "rvos_edge: TensorRT ${TENSORRT_LIBRARY}")
  else()
    message(STATUS "rvos_edge: no TensorRT (give -DTENSORRT_ROOT and -DCUDAToolkit_ROOT)")
  endif()
endfunction()
