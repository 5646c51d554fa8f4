# Cross-compile for a Jetson or another 64-bit ARM board, with Debian's or Ubuntu's g++-aarch64-linux-gnu:
#
#     cmake -S cpp_bindings -B build-jetson --toolchain cpp_bindings/cmake/toolchains/aarch64-linux-gnu.cmake
#
# RVOS_EDGE_SYSROOT is a copy of the board's file system (/usr and /opt suffice). TensorRT, CUDA, OpenVINO, ONNX Runtime
# and nlohmann_json are then found there and nowhere else. Without it the library is built without backends.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(RVOS_EDGE_SYSROOT "" CACHE PATH "Copy of the board's file system")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES RVOS_EDGE_SYSROOT)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
if(RVOS_EDGE_SYSROOT)
  set(CMAKE_SYSROOT "${RVOS_EDGE_SYSROOT}")
  set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
  set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
  set(ENV{PKG_CONFIG_SYSROOT_DIR} "${RVOS_EDGE_SYSROOT}")
  set(ENV{PKG_CONFIG_LIBDIR}
    "${RVOS_EDGE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${RVOS_EDGE_SYSROOT}/usr/share/pkgconfig")
else()
  # Header-only packages such as nlohmann_json may come from the build machine; libraries may not.
  set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH)
  set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
endif()
