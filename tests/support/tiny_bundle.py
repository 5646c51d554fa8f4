"""A complete bundle of eight small graphs made without PyTorch, and the same arithmetic in NumPy to test against.

The network means nothing, but every wire matters: each output depends on each input, the flow on the previous frame,
the margin on the flow and on the words.

Example:
    >>> path = write_tiny_bundle(tmp_path / "tiny")
    >>> segmenter = rvos_edge.open(path)
    >>> reference = Reference(path)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from support.tiny_graphs import F32, WORDS, make_graphs, weights, write_graph
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rvos_edge.bundle import sha256_of
from rvos_edge.manifest import FORMAT_VERSION, FlowSpec, Manifest, TextSpec, read_manifest

ITERATIONS = 3
MAX_TOKENS = 16


def write_tiny_bundle(
    directory: Path,
    *,
    size: tuple[int, int] = (64, 96),
    flow: bool = True,
    teach: bool = False,
    presence: bool = False,
) -> Path:
    """Write the bundle and return its directory.

    Args:
        directory: Made when missing.
        size: Height and width of the input, multiples of 32.
        flow: False for a bundle without flow graphs.
        teach: With the graph with which queries learn: cross-entropy of the margin, and its gradients.
        presence: With the output ``presence`` of ``gating``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(directory / "tokenizer.json"))
    graphs = {
        name: write_graph(directory, name, *parts) for name, parts in make_graphs(size, flow, teach, presence).items()
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name="tiny",
        preset="test",
        network={"fusion": "hierarchical", "flow": "both" if flow else "none"},
        size=size,
        stride=4,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        text=TextSpec(sha256=sha256_of(directory / "tokenizer.json"), max_tokens=MAX_TOKENS),
        flow=FlowSpec(iterations=ITERATIONS, scale=1) if flow else None,
        graphs=graphs,
        states={"fmap_prev": "fmap", "hidden": "hidden_next", "coords": "coords_next"} if flow else {},
        tools={"onnx": onnx.__version__},
        checkpoint="none",
        checkpoint_sha256="0" * 64,
        network_id="1" * 32,
        licences=("Apache-2.0",),
    )
    write_manifest(directory, manifest)
    return directory


def write_two_sizes(folder: Path) -> Path:
    """A bundle of 64x96 that also has graphs for 96x128."""
    small = write_tiny_bundle(folder)
    large = read_manifest(write_tiny_bundle(folder / "96x128", size=(96, 128)))
    graphs = {n: s.model_copy(update={"file": f"96x128/{s.file}"}) for n, s in large.graphs.items() if n != "text"}
    write_manifest(small, read_manifest(small).model_copy(update={"sizes": {"96x128": graphs}}))
    return small


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    (directory / "manifest.json").write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


class Reference:
    """The chain in NumPy, with a warm start of the flow; ``iterations`` is that of FlowOptions."""

    def __init__(self, *, size: tuple[int, int] = (64, 96), iterations: int = ITERATIONS) -> None:
        self.size, self.iterations = size, iterations
        self.w = weights()
        self.reset()

    def reset(self) -> None:
        """Forget the previous frame."""
        self.fmap_prev: F32 | None = None
        self.coords: F32 | None = None
        self.field = np.zeros((2, *self.size), np.float32)

    def step(self, frame: NDArray[np.uint8], queries: Sequence[str], *, flow: str = "run") -> tuple[F32, F32]:
        """Margins [Q,h,w] and flow [2,H,W] of the next frame; ``flow`` is "run", "keep" or "zero"."""
        w = self.w
        height, width = self.size
        image = cv2.resize(frame, (width, height)).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        quarter, eighth = _pool(image, 4), _pool(image, 8)
        c2, c3 = _mix(w["w_c2"], quarter), np.maximum(_mix(w["w_c3"], eighth), 0)
        c4 = _mix(w["w_c4"], c3)
        v4 = np.maximum(_mix(w["w_v4"], _mix(w["w_c5"], c4)), 0)
        field = self._flow(eighth, flow)
        motion = _pool(np.abs(field - field.mean((1, 2), keepdims=True)).mean(0, keepdims=True), 4)[0]
        margins = []
        for query in queries:
            l1, l2, l3, l4 = self.text(query)
            coarse = np.tensordot(l2, c3, 1) + np.tensordot(l3, c4, 1) + np.tensordot(l4, v4, 1)
            margin = np.tensordot(l1, c2, 1) + _repeat(coarse, 2) + 0.1 * motion * l1.sum()
            margins.append(margin - margin.mean())
        return np.stack(margins), field

    def text(self, query: str) -> list[F32]:
        """lang1 .. lang4."""
        ids = _tokenizer().encode(query).ids
        mean = self.w["table"][ids].mean(0)
        return [mean @ self.w[f"w_lang{i}"] for i in range(1, 5)]

    def _flow(self, eighth: F32, mode: str) -> F32:
        w = self.w
        height, width = eighth.shape[1:]
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
        fmap, previous = _mix(w["w_fmap"], eighth), self.fmap_prev
        self.fmap_prev = fmap
        if mode == "keep":
            return self.field
        if previous is None or mode == "zero":
            self.coords = None
            self.field = np.zeros((2, *self.size), np.float32)
            return self.field
        hidden, context = (np.tanh(_mix(w["w_hidden"], eighth)), np.maximum(_mix(w["w_context"], eighth), 0))
        corr = ((fmap * previous).sum(0), (fmap - previous).sum(0), previous.max(0), fmap.mean(0))
        coords = self.coords if self.coords is not None else grid
        for _ in range(self.iterations):
            hidden = np.tanh(0.5 * hidden + 0.3 * context + corr[0])
            coords = coords + 0.2 * np.sin(coords) + _mix(w["w_step"], hidden) + np.stack([corr[1], corr[2] * corr[3]])
        self.coords = coords
        self.field = _repeat(8 * (coords - grid) + hidden[:2], 8)
        return self.field


def _mix(weight: F32, tensor: F32) -> F32:
    return np.tensordot(weight, tensor, 1)


def _pool(tensor: F32, n: int) -> F32:
    c, h, w = tensor.shape
    return tensor.reshape(c, h // n, n, w // n, n).mean((2, 4))


def _repeat(tensor: F32, n: int) -> F32:
    return tensor.repeat(n, -1).repeat(n, -2)


def _tokenizer() -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As exported tokenizers often have it; the runtime must not cut silently.
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
