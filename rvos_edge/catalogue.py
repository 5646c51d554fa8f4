"""Bundles by name: those that come with the package, and those in the user's folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rvos_edge.bundle import shipped_bundle
from rvos_edge.manifest import format_size, read_manifest

FOLDERS_VARIABLE = "RVOS_EDGE_BUNDLES"
"""Environment variable with further folders of bundles, separated as in PATH."""


def bundle_folders() -> list[Path]:
    """Folders in which bundles have names, the most important first: $RVOS_EDGE_BUNDLES, the user's, the package's."""
    listed = [Path(folder) for folder in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if folder]
    data = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"))  # Path's own needs a home
    return [*listed, data / "rvos-edge" / "bundles", shipped_bundle().parent]


def list_bundles() -> dict[str, Path]:
    """Bundles by name, which is that of their folder."""
    found: dict[str, Path] = {}
    for folder in bundle_folders():
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (path / "manifest.json").is_file():
                found.setdefault(path.name, path)
    return found


def find_bundle(bundle: str | Path | None = None) -> Path:
    """The folder of a bundle, given as a folder or by its name in one of `bundle_folders`; None is the shipped
    ``edge``.

    Where there is neither, the path as it was given, which opening then refuses.
    """
    if bundle is None:
        return shipped_bundle()
    path = Path(bundle)
    if (path / "manifest.json").is_file() or path.name != str(bundle):
        return path
    return list_bundles().get(path.name, path)


def describe_bundles(bundles: dict[str, Path]) -> Iterable[str]:
    """Describe bundles, one text each: name, megabytes, input, J of the model card, folder, licences of the data.

    Raises:
        UserError: A manifest is damaged.
    """
    for name, path in bundles.items():
        manifest = read_manifest(path)
        megabytes = sum(file.stat().st_size for file in path.iterdir() if file.is_file()) / 1e6
        card = path / "README.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        mean = re.search(r"^\| mean \| ([0-9.]+)", text, re.MULTILINE)
        quality = f", J {mean[1]} on the videos of its card" if mean else ""
        licences = "; ".join(manifest.licences) or "none stated"
        yield f"{name}: {megabytes:.0f} MB, {format_size(manifest.size)}{quality}\n  {path}\n  licences: {licences}"
