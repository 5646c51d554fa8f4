"""The network in PyTorch behind the runtime's interface; the reference for exported bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.errors import UserError
from rvos_edge.manifest import format_size
from rvos_edge.preprocess import Preprocessor, fill_padding
from rvos_edge.presence import MIN_PRESENCE, PresenceFilter
from rvos_edge.queries import Query, TaughtQuery
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.flow import FlowStream
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import LanguageVectors, tokenize


class TorchSegmenter:
    """Segments a stream with a checkpoint, as ``rvos_edge.Segmenter`` does with a bundle.

    Attributes:
        flow: Flow of the last frame to the previous one, float32 [1,2,h,w] in pixels of the network's input; zeros on a
            first frame, None before it and for a network without flow.
        presence: Probability that what each query names is in the last frame, float32 [Q], smoothed over time; None
            before the first frame and for a network without a presence head.
        present: Which queries are judged to be in the last frame, bool [Q]; None where ``presence`` is.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        size: tuple[int, int] | Literal["original"] | None = None,
        device: str = "cpu",
        min_presence: float = MIN_PRESENCE,
    ) -> None:
        """Prepare for a video.

        Args:
            size: Height and width of the network's input; "original" for each frame's own (supplement, section 1),
                rounded up to what the network takes; None for the checkpoint's.
            min_presence: Probability from which a query is present; 0 gives every query its mask.

        Raises:
            UserError: The network cannot take such a size.
        """
        self.model = checkpoint.model.eval().to(device)
        self.tokenizer = checkpoint.tokenizer
        self.device = device
        self._original = size == "original"
        self.size = self.model.config.size
        if size is not None and size != "original":
            check_size(size, self.model)
            self.size = size
        self._preprocess = Preprocessor(self.size)
        self._language: LanguageVectors = ()
        self._min_presence = min_presence
        self._presence = PresenceFilter([], min_presence)
        self.reset()

    def reset(self) -> None:
        """Forget the previous frame."""
        self.flow: Tensor | None = None
        self.presence: NDArray[np.float32] | None = None
        self.present: NDArray[np.bool_] | None = None
        self._presence.reset()
        self._stream = FlowStream(self.model.flow) if self.model.flow is not None else None

    def teach(self, *_: object) -> str:
        """Always refused; only bundles hold the graph ``teach``.

        Raises:
            UserError: Always.
        """
        raise UserError("queries learn by a bundle's graph 'teach'; export the checkpoint and give --bundle.")

    @torch.inference_mode()
    def set_queries(self, queries: Sequence[Query]) -> None:
        """Encode the queries.

        Raises:
            UserError: There are no queries, or one was taught, which needs a bundle.
        """
        if any(isinstance(query, TaughtQuery) for query in queries):
            raise UserError("taught queries are for bundles; export the checkpoint and give --bundle.")
        if not queries:
            raise UserError("There is no query; give at least one sentence.")
        ids, mask = tokenize(self.tokenizer, [str(query) for query in queries], self.model.config.text.max_tokens)
        vectors = self.model.encode_text(ids.to(self.device), mask.to(self.device))
        self._language = tuple(vector.unsqueeze(0) for vector in vectors)
        self._presence = PresenceFilter([0.0] * len(queries), self._min_presence)

    @torch.inference_mode()
    def margins(self, frame: NDArray[np.uint8]) -> Tensor:
        """Frame uint8 [H,W,3] BGR -> object minus background logit, float32 [Q,h,w].

        Raises:
            UserError: No queries are set.
        """
        if not self._language:
            raise UserError("No queries are set; call set_queries before the first frame.")
        if self._original:
            self._set_size(self.model.size_above((frame.shape[0], frame.shape[1])))
        resized = self._preprocess(frame)
        placement = self._preprocess.placement
        image = torch.from_numpy(np.ascontiguousarray(resized[:, :, ::-1])).permute(2, 0, 1)[None].to(self.device)
        self.flow = self._stream.step(image.float()) if self._stream is not None else None
        if placement.padded and self.flow is not None:
            self.flow = torch.from_numpy(fill_padding(self.flow.cpu().numpy(), placement)).to(self.device)
        levels = self.model.encode_image(image)
        visions, motions = self.model.condition(levels, self.flow)
        answer = self.model.answer(visions, motions, self._language)
        if self.model.presence is not None:
            chance = self.model.present(visions, self.flow, self._language, answer)[0].cpu().numpy()
            self.presence, self.present = self._presence.update(chance)
        logits = self.model.refine(image, answer)[0]
        rows, columns = placement.on((logits.shape[-2], logits.shape[-1]))
        margin: Tensor = (logits[:, 1] - logits[:, 0])[:, rows, columns]
        return margin

    def _set_size(self, size: tuple[int, int]) -> None:
        """Change the input's size; the flow starts anew."""
        if size != self.size:
            self.size, self._preprocess = size, Preprocessor(size)
            self.reset()

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Frame uint8 [H,W,3] BGR -> masks bool [Q,H,W] at the frame's size, empty where a query is not present.

        Raises:
            UserError: No queries are set.
        """
        margin = self.margins(frame)
        up = F.interpolate(margin[None], size=frame.shape[:2], mode="bilinear", align_corners=False)[0]
        masks: NDArray[np.bool_] = (up > 0).cpu().numpy()
        if self.present is not None:
            masks[~self.present] = False
        return masks


def check_size(size: tuple[int, int], model: HINet) -> None:
    """Refuse an input's height and width that the network cannot take.

    Raises:
        UserError: An extent is too small or no multiple of the network's.
    """
    if model.size_above(size) != size:
        multiple = model.size_multiple
        least, _ = model.size_above((0, 0))
        height, width = (max(round(extent / multiple) * multiple, least) for extent in size)
        raise UserError(
            f"--size {format_size(size)}: this network needs multiples of {multiple} from {least} up, "
            f"for example {format_size((height, width))}."
        )
