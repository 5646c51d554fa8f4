#!/usr/bin/env bash
# onnxruntime_root.sh FOLDER [PYTHON]: a folder for -DONNXRUNTIME_ROOT. It has the library of the Python environment's
# onnxruntime, whose wheel has no headers, and the headers of Debian's libonnxruntime-dev, which are older and fit: the
# backend asks for the interface of ONNX Runtime 1.18. Where this Debian does not have that package, Debian 13's is
# unpacked, and not installed.
set -euo pipefail
root=$1 python=${2:-python3}
capi="$("$python" -c 'import importlib.util as u; print(u.find_spec("onnxruntime").submodule_search_locations[0])')/capi"
library="$(compgen -G "$capi/libonnxruntime.so.1.*")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

headers=/usr/include/onnxruntime
if [[ ! -d $headers ]]; then
    # The mirror that is configured here, with lists of its own: neither this system's lists nor its packages change.
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -m1 'debian/$')"
    mkdir -p "$work/lists/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
    own=(-qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root -o Acquire::Languages=none)
    (cd "$work" && apt-get "${own[@]}" update && apt-get "${own[@]}" download libonnxruntime-dev)
    dpkg -x "$work"/libonnxruntime-dev_*.deb "$work/unpacked"
    headers="$work/unpacked$headers"
fi
mkdir -p "$root/lib"
cp -rT "$headers" "$root/include"
ln -sf "$library" "$root/lib/libonnxruntime.so"
ln -sf "$library" "$root/lib/libonnxruntime.so.1" # the name that the loader asks for
