# Which backends are built: each one is a source file, a definition RVOS_EDGE_WITH_<NAME> and what it links.
# A backend's finder sets <name>_usable; rvos_edge_link_backends then adds it to the library.

# OpenVINO's wheel on PyPI carries headers and CMake files: ask the Python at hand where, unless told.
function(rvos_edge_find_openvino)
  if(NOT OpenVINO_DIR)
    find_package(Python3 COMPONENTS Interpreter QUIET)
    if(Python3_Interpreter_FOUND)
      execute_process(
        COMMAND ${Python3_EXECUTABLE} -c
                "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
        OUTPUT_VARIABLE package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(package AND EXISTS "${package}/cmake/OpenVINOConfig.cmake")
        set(OpenVINO_DIR "${package}/cmake" CACHE PATH "Folder of OpenVINOConfig.cmake")
      endif()
    endif()
  endif()
endfunction()

if(NOT RVOS_EDGE_OPENVINO STREQUAL "OFF")
  rvos_edge_find_openvino()
  if(RVOS_EDGE_OPENVINO STREQUAL "AUTO")
    find_package(OpenVINO QUIET COMPONENTS Runtime)
  else()
    find_package(OpenVINO REQUIRED COMPONENTS Runtime)
  endif()
  set(openvino_usable ${OpenVINO_FOUND})
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
endfunction()
