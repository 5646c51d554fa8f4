#!/usr/bin/env bash
# cross_check.sh [WORK]: the library is built for 64-bit ARM against a made-up JetPack and its unit tests run under
# QEMU. What belongs to JetPack must be found below the sysroot, and nothing of the host's. Takes minutes.
#   apt-get install g++-aarch64-linux-gnu qemu-user cmake ninja-build nlohmann-json3-dev libgtest-dev
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="${1:-$(mktemp -d)}"
root="$work/rootfs"
triple=aarch64-linux-gnu
cuda="$root/usr/local/cuda-12.6/targets/aarch64-linux"

echo '== a root file system with the names that JetPack 6 has, and libraries that do nothing'
mkdir -p "$root/usr/lib" "$root/usr/include/$triple" "$root/usr/share/cmake" "$cuda/include" "$cuda/lib"
cp -a "/usr/$triple/lib" "$root/usr/lib/$triple"
cp -a "/usr/$triple/include/." "$root/usr/include"
ln -sfn usr/lib "$root/lib"
ln -sfn "$triple/ld-linux-aarch64.so.1" "$root/usr/lib/ld-linux-aarch64.so.1"
# ld adds the sysroot to the absolute names in these linker scripts.
sed -i "s#/usr/$triple/lib/#/usr/lib/$triple/#g" "$root/usr/lib/$triple"/{libc,libm}.so
ln -sfn /etc/alternatives/cuda "$root/usr/local/cuda" # as on the board: in a copy it leads nowhere, or to the host's
cp "$here"/tensorrt/include/NvInfer*.h "$root/usr/include/$triple"
cp "$here/tensorrt/include/cuda_runtime_api.h" "$cuda/include"
"$triple-g++" -shared -fPIC -I"$cuda/include" -o "$cuda/lib/libcudart.so" "$here/tensorrt/fake_cuda.cpp"
printf '%s\n' '#include <NvInfer.h>' \
    'nvinfer1::IRuntime* nvinfer1::createInferRuntime(ILogger&) noexcept { return nullptr; }' \
    'extern "C" std::int32_t getInferLibVersion() noexcept { return 100300; }' >"$work/nvinfer.cpp"
"$triple-g++" -shared -fPIC -I"$cuda/include" -I"$root/usr/include/$triple" \
    -o "$root/usr/lib/$triple/libnvinfer.so" "$work/nvinfer.cpp"

configure() {
    cmake -S "$here/.." -B "$1" -G Ninja --toolchain "$here/../cmake/toolchains/$triple.cmake" \
        -DRVOS_EDGE_SYSROOT="$root" -DRVOS_EDGE_TENSORRT="$2" >"$work/log" 2>&1
}

echo '== nothing of the host'
if configure "$work/without-json" AUTO; then
    echo 'nlohmann_json was taken from the host' >&2
    exit 1
fi
grep -q nlohmann_json "$work/log"
cp -a /usr/include/nlohmann "$root/usr/include"
cp -a /usr/share/cmake/nlohmann_json "$root/usr/share/cmake"
cmake -S /usr/src/googletest -B "$work/gtest" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_GMOCK=OFF \
    -DCMAKE_INSTALL_PREFIX=/usr --toolchain "$here/../cmake/toolchains/$triple.cmake" -DRVOS_EDGE_SYSROOT="$root" \
    >"$work/log"
cmake --build "$work/gtest" >"$work/log"
DESTDIR="$root" cmake --install "$work/gtest" >"$work/log"
configure "$work/build" ON || { cat "$work/log"; exit 1; }
found="$(grep -E '^(TENSORRT|CUDART)_(INCLUDE_DIR|LIBRARY):|^(nlohmann_json|GTest)_DIR:' "$work/build/CMakeCache.txt")"
printf '%s\n' "${found//$root/SYSROOT}"
if [[ $(wc -l <<<"$found") -ne 6 || "$(grep -c "=$root/" <<<"$found")" -ne 6 ]]; then
    echo 'these are not below the sysroot' >&2
    exit 1
fi

echo '== the unit tests on 64-bit ARM'
cmake --build "$work/build" --target rvos_edge_tests >"$work/log" || { tail -30 "$work/log"; exit 1; }
QEMU_LD_PREFIX="$root" qemu-aarch64 -E LD_LIBRARY_PATH="$cuda/lib" \
    "$work/build/tests/rvos_edge_tests"
[[ -n "${1:-}" ]] || rm -rf "$work"
