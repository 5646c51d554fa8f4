"""The bundle: a directory of ONNX graphs with a manifest; the contract between export and every runtime.

Opening a bundle verifies the format version, the hashes and the wiring (``manifest``).
"""

from __future__ import annotations

import hashlib
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import Manifest, at_size, check_wiring, read_manifest


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, size: tuple[int, int] | None = None) -> Bundle:
        """Read and verify a bundle directory and the files of one input size.

        Args:
            size: Height and width of the input, one of those that it was exported for; None for the first.

        Raises:
            UserError: The bundle is missing, damaged, of another format version, lacks the size, or its wiring does
                not close.
        """
        root = Path(path)
        manifest = read_manifest(root)
        if size is not None:
            manifest = at_size(manifest, size, root)
        for name, graph in manifest.graphs.items():
            check_file(root, graph.file, graph.sha256, f"graph '{name}'")
            _check_self_contained(root / graph.file)
        check_file(root, manifest.text.tokenizer, manifest.text.sha256, "the tokenizer")
        check_wiring(manifest, root)
        return cls(root, manifest)

    def graph_path(self, name: str) -> Path:
        """Path of a graph's ONNX file."""
        return self.path / self.manifest.graphs[name].file

    @property
    def tokenizer_path(self) -> Path:
        """Path of tokenizer.json."""
        return self.path / self.manifest.text.tokenizer

    @property
    def fingerprint(self) -> str:
        """sha256 over the hashes of all files; the key of anything computed with this bundle."""
        hashes = [graph.sha256 for _, graph in sorted(self.manifest.graphs.items())]
        return hashlib.sha256("".join([*hashes, self.manifest.text.sha256]).encode()).hexdigest()


def shipped_bundle() -> Path:
    """Directory of the ``edge`` bundle that is part of the package."""
    # An editable install in strict mode is a tree of links, and a file that leads out of a bundle is refused.
    return Path(__file__).resolve().parent / "bundles" / "edge"


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_file(root: Path, name: str, sha256: str, what: str) -> None:
    """Verify that a file lies inside its bundle and has the hash that the manifest states.

    Raises:
        UserError: The file is outside, missing, unreadable or damaged; ``what`` names it in the message.
    """
    path = root / name
    try:
        if Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{root}: {what} names '{name}', which leaves the bundle; do not use this bundle.")
        if not path.is_file():
            raise UserError(f"{root}: {what} ({name}) is missing; copy the whole bundle or export it again.")
        found = sha256_of(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a ring, before Python 3.13
        raise UserError(
            f"{root}: {what} ({name}) cannot be read ({one_line(error)}); copy the whole bundle or export it again."
        ) from error
    if found != sha256:
        raise UserError(f"{path} does not match its sha256 in manifest.json: it is damaged; copy or export it again.")


def _check_self_contained(path: Path) -> None:
    """Refuse an ONNX file whose weights lie in another file: the hashes would not cover that one.

    External data is an entry with the key "location" (string, field 1) in the file's protocol buffers, whose tag and
    length may be written with padding.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            return  # cannot be mapped; refused when it is loaded
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = -1
            while (at := content.find(b"location", at + 1)) >= 0:
                if re.search(
                    rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)$", content[max(0, at - 24) : at], re.DOTALL
                ):
                    raise UserError(f"{path} keeps weights in another file, which a bundle may not; export it again.")
