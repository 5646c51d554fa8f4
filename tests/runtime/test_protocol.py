"""The interface of the segmenters: a runtime that lacks a part of it is told so when it is made, not on use."""

from __future__ import annotations

import pytest

from rvos_edge.cpp import CppSegmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.segmenter import Segmenter


def test_both_runtimes_implement_all_of_it() -> None:
    assert not Segmenter.__abstractmethods__
    assert not CppSegmenter.__abstractmethods__


def test_a_segmenter_without_a_method_is_refused() -> None:
    class Half(SegmenterProtocol):
        def reset(self) -> None: ...

    with pytest.raises(TypeError, match="set_adapt"):
        Half()  # type: ignore[abstract]
