"""The network in PyTorch behind the runtime's interface: the reference that exported bundles are compared with."""

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
from rvos_edge.trainer.model.flow import identity_grid
from rvos_edge.trainer.model.language import LanguageVectors, tokenize


class TorchSegmenter:
    """Segments a stream with a checkpoint, as ``rvos_edge.Segmenter`` does with a bundle.

    Args:
        checkpoint: Network and tokenizer.
        size: Height and width of the network's input; the config's by default.
        device: A torch device.

    Attributes:
        flow: What the last frame's motion image was made of, float32 [1,2,h,w] in pixels of the network's input, this
            frame to the previous one; zeros on a first frame, None before it and where the network has no flow.
        presence: float32 [Q], probability that what each query names is in the last frame; None before the first one
            and where the network has no presence head.

    Example:
        >>> segmenter = TorchSegmenter(load_checkpoint(Path("runs/edge/checkpoint")))  # doctest: +SKIP
        >>> segmenter.set_queries(["the dog on the left"])  # doctest: +SKIP
        >>> masks = segmenter.masks(frame)          # bool [1,H,W]  # doctest: +SKIP
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
        self._fmap: Tensor | None = None
        self._coords: Tensor | None = None

    def teach(self, *_: object) -> str:
        """Refused: queries learn on the device, by the bundle's graph ``teach``.

        Raises:
            UserError: Always.
        """
        raise UserError("queries learn by a bundle's graph 'teach'; export the checkpoint and give --bundle.")

    @torch.inference_mode()
    def set_queries(self, queries: Sequence[Query]) -> None:
        """Encode the queries; each may be any sentence.

        Raises:
            UserError: There is none, or one was taught, which needs a bundle.
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
        """uint8 [H,W,3] BGR -> object minus background logit, float32 [Q,h,w].

        Raises:
            UserError: No queries are set.
        """
        if not self._language:
            raise UserError("No queries are set; call set_queries before the first frame.")
        resized = self._preprocess(frame)
        placement = self._preprocess.placement
        image = torch.from_numpy(np.ascontiguousarray(resized[:, :, ::-1])).permute(2, 0, 1)[None].to(self.device)
        self.flow = self._flow(image.float())
        if placement.padded and self.flow is not None:
            self.flow = torch.from_numpy(fill_padding(self.flow.cpu().numpy(), placement)).to(self.device)
        levels = self.model.encode_image(image)
        answer = self.model.answer(*self.model.condition(levels, self.flow), self._language)
        if self.model.presence is not None:
            self.presence = self.model.present(levels, self.flow, self._language, answer)[0].cpu().numpy()
        logits = self.model.refine(image, self.model.complete(answer, levels, self.flow))[0]
        rows, columns = placement.on((logits.shape[-2], logits.shape[-1]))
        margin: Tensor = (logits[:, 1] - logits[:, 0])[:, rows, columns]
        return margin

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """uint8 [H,W,3] BGR -> bool [Q,H,W] at the frame's size."""
        margin = self.margins(frame)
        up = F.interpolate(margin[None], size=frame.shape[:2], mode="bilinear", align_corners=False)[0]
        masks: NDArray[np.bool_] = (up > 0).cpu().numpy()
        return masks

    def _flow(self, image: Tensor) -> Tensor | None:
        network = self.model.flow
        if network is None:
            return None
        prepared = network.prepare(image)
        fmap, previous = network.encode(prepared), self._fmap
        self._fmap = fmap
        if previous is None or self._coords is None:
            self._coords = identity_grid(fmap)
            height, width = self.size
            return image.new_zeros(1, 2, height // network.field_scale, width // network.field_scale)
        pyramid = network.correlate(fmap, previous)
        hidden, context = network.context(prepared)
        for _ in range(network.iterations):
            hidden, self._coords = network.step(pyramid, hidden, context, self._coords)
        return network.upsample(hidden, self._coords)
