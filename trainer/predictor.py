"""The network in PyTorch behind the runtime's interface; the reference for exported bundles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.errors import UserError
from rvos_edge.preprocess import Preprocessor, fill_padding
from rvos_edge.queries import Query, TaughtQuery
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.flow import FlowStream
from rvos_edge.trainer.model.language import LanguageVectors, tokenize


class TorchSegmenter:
    """Segments a stream with a checkpoint, as ``rvos_edge.Segmenter`` does with a bundle.

    Attributes:
        flow: Flow of the last frame to the previous one, float32 [1,2,h,w] in pixels of the network's input; zeros on a
            first frame, None before it and for a network without flow.
        presence: Probability that what each query names is in the last frame, float32 [Q]; None before the first frame
            and for a network without a presence head.
    """

    def __init__(self, checkpoint: Checkpoint, *, size: tuple[int, int] | None = None, device: str = "cpu") -> None:
        self.model = checkpoint.model.eval().to(device)
        self.tokenizer = checkpoint.tokenizer
        self.size = size or self.model.config.size
        self.device = device
        self._preprocess = Preprocessor(self.size)
        self._language: LanguageVectors = ()
        self.reset()

    def reset(self) -> None:
        """Forget the previous frame."""
        self.flow: Tensor | None = None
        self.presence: NDArray[np.float32] | None = None
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

    @torch.inference_mode()
    def margins(self, frame: NDArray[np.uint8]) -> Tensor:
        """Frame uint8 [H,W,3] BGR -> object minus background logit, float32 [Q,h,w].

        Raises:
            UserError: No queries are set.
        """
        if not self._language:
            raise UserError("No queries are set; call set_queries before the first frame.")
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
            self.presence = self.model.present(visions, self.flow, self._language, answer)[0].cpu().numpy()
        logits = self.model.refine(image, answer)[0]
        rows, columns = placement.on((logits.shape[-2], logits.shape[-1]))
        margin: Tensor = (logits[:, 1] - logits[:, 0])[:, rows, columns]
        return margin

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Frame uint8 [H,W,3] BGR -> masks bool [Q,H,W] at the frame's size.

        Raises:
            UserError: No queries are set.
        """
        margin = self.margins(frame)
        up = F.interpolate(margin[None], size=frame.shape[:2], mode="bilinear", align_corners=False)[0]
        masks: NDArray[np.bool_] = (up > 0).cpu().numpy()
        return masks
