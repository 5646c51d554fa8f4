#!/usr/bin/env bash
# install_check.sh CMAKE BUILD COMPILER: programs build and run against the installed library after its folder has moved.
set -euo pipefail
cmake=$1 build=$2 compiler=$3
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/moved"
if grep -rIl "$work/first" "$work/moved"; then
    echo 'these installed files hold the path of their installation' >&2
    exit 1
fi

"$cmake" -S "$here/consumer" -B "$work/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/moved" >"$work/log"
"$cmake" --build "$work/consumer" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/consumer/consumer"

# The C interface by pkg-config: only the parts that need no backend, so nothing of theirs is linked.
pc="$(find "$work/moved" -name rvos_edge.pc)"
if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH="${pc%/*}"
    [[ -f "$(pkg-config --variable=includedir rvos_edge)/rvos_edge/rvos_edge.h" ]]
    [[ "$(pkg-config --modversion rvos_edge)" == *.*.* ]]
    # shellcheck disable=SC2046
    "$compiler" -x c -fsyntax-only $(pkg-config --cflags rvos_edge) "$here/consumer/c_caller.c"
fi
