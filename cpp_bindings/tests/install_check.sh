#!/usr/bin/env bash
# install_check.sh CMAKE BUILD COMPILER [FOLDER...]: the installed library holds no absolute path, and after its folder has
# moved, programs build and run against it by CMake and by pkg-config. FOLDER...: where the backends' libraries lie. CMake
# finds them by the environment (OpenVINO_DIR, ONNXRUNTIME_ROOT), and the loader by LD_LIBRARY_PATH.
set -euo pipefail
cmake=$1 build=$2 compiler=$3
shift 3
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fail() {
    echo "$1" >&2
    exit 1
}

"$cmake" --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/moved"
for path in "$work/first" "$build" "$@"; do
    if grep -rIlF "$path" "$work/moved"; then fail "these installed files hold the path $path"; fi
done
while IFS= read -r file; do
    paths="$({ readelf -d "$file" 2>/dev/null || true; } | sed -n 's/.*R\(UN\)\?PATH.*\[\(.*\)\]/\2/p')"
    if [[ "$paths" == /* || "$paths" == *:/* ]]; then fail "$file looks for libraries in $paths"; fi
done < <(find "$work/moved" -type f)

consumer=(-S "$here/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/moved")
if [[ -n "${OpenVINO_DIR:-}" ]]; then
    if env -u OpenVINO_DIR "$cmake" "${consumer[@]}" -B "$work/refused" -Drvos_edge_python=/nowhere 2>"$work/log"; then
        fail 'OpenVINO was found though nothing names its place'
    fi >"$work/output"
    tr -s '\n ' ' ' <"$work/log" | grep -q 'OpenVINO is not found: give OpenVINO_DIR'
fi
"$cmake" "${consumer[@]}" -B "$work/consumer" >"$work/log"
"$cmake" --build "$work/consumer" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/consumer/consumer"

libraries="$(IFS=:; echo "$*")"
pc="$(find "$work/moved" -name rvos_edge.pc)"
if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH="${pc%/*}" LIBRARY_PATH="$libraries" LD_LIBRARY_PATH="$libraries"
    [[ "$(pkg-config --modversion rvos_edge)" == *.*.* ]]
    # shellcheck disable=SC2046
    "$compiler" -x c -c -o "$work/c_caller.o" $(pkg-config --cflags rvos_edge) "$here/consumer/c_caller.c"
    # shellcheck disable=SC2046
    "$compiler" -std=c++17 -o "$work/by_pkg_config" $(pkg-config --cflags rvos_edge) "$here/consumer/main.cpp" \
        "$work/c_caller.o" $(pkg-config --static --libs rvos_edge)
    "$work/by_pkg_config"
fi
