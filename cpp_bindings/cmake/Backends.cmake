# The backends to build. A backend is a source file, a definition RVOS_EDGE_WITH_<NAME> and its libraries.
# Its finder sets <name>_usable; rvos_edge_link_backends then adds it to the library.

# OpenVINO's wheel on PyPI has headers and CMake files: ask Python for its place, unless OpenVINO_DIR is given. -I ignores
# the isolation of pip's builds, because the library must link the OpenVINO that it will run with.
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

include("${CMAKE_CURRENT_LIST_DIR}/rvos_edgeLibraries.cmake")

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
  if(TARGET rvos_edge_onnxruntime)
    set(onnxruntime_usable ON)
  endif()
  rvos_edge_insist("${RVOS_EDGE_ONNXRUNTIME}" "ONNX Runtime" "${onnxruntime_usable}"
    "unpack a release of it and give ONNXRUNTIME_ROOT, or install libonnxruntime-dev")
endif()
if(NOT RVOS_EDGE_TENSORRT STREQUAL "OFF")
  rvos_edge_find_tensorrt()
  if(TARGET rvos_edge_tensorrt AND TARGET rvos_edge_cudart)
    set(tensorrt_usable ON)
  endif()
  rvos_edge_insist("${RVOS_EDGE_TENSORRT}" "TensorRT with CUDA" "${tensorrt_usable}"
    "give TENSORRT_ROOT and CUDAToolkit_ROOT; on a Jetson both come with JetPack")
endif()

# Add the usable backends to a target, and report them.
function(rvos_edge_link_backends target)
  if(openvino_usable)
    target_sources(${target} PRIVATE src/openvino.cpp)
    target_compile_definitions(${target} PRIVATE RVOS_EDGE_WITH_OPENVINO)
    target_link_libraries(${target} PRIVATE openvino::runtime)
    message(STATUS "rvos_edge: OpenVINO ${OpenVINO_VERSION} from ${OpenVINO_DIR}")
  else()
    message(STATUS "rvos_edge: no OpenVINO (pip install openvino, or give -DOpenVINO_DIR)")
  endif()
  if(onnxruntime_usable)
    target_sources(${target} PRIVATE src/onnxruntime.cpp)
    target_compile_definitions(${target} PRIVATE RVOS_EDGE_WITH_ONNXRUNTIME)
    target_link_libraries(${target} PRIVATE rvos_edge_onnxruntime)
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
    target_link_libraries(${target} PRIVATE rvos_edge_tensorrt rvos_edge_cudart)
    message(STATUS "rvos_edge: TensorRT ${TENSORRT_LIBRARY}")
  else()
    message(STATUS "rvos_edge: no TensorRT (give -DTENSORRT_ROOT and -DCUDAToolkit_ROOT)")
  endif()
endfunction()
