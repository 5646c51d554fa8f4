"""HINet: hierarchical interaction of language, vision and motion.

"Hierarchical Interaction Network for Video Object Segmentation from Referring Expressions", BMVC 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.aspp import build_aspp
from rvos_edge.trainer.model.attention import POOL, Attention
from rvos_edge.trainer.model.decoder import Decoder
from rvos_edge.trainer.model.encoders import build_backbone
from rvos_edge.trainer.model.flow import FLOW_SCALES, FLOW_STRIDE, FlowNetwork
from rvos_edge.trainer.model.guided_filter import GuidedFilter
from rvos_edge.trainer.model.interaction import Interaction, VisionBranch
from rvos_edge.trainer.model.language import LanguageProjections, LanguageVectors, SentenceEncoder
from rvos_edge.trainer.model.motion import MotionEncoder, motion_image
from rvos_edge.trainer.model.presence import Presence
from rvos_edge.trainer.model.presets import IMAGENET_MEAN, IMAGENET_STD, Boundary, ModelConfig


class HINet(nn.Module):
    """The network, in parts that are exported one by one.

    Vision (``encode_image``), flow (``flow``) and language (``encode_text``) do not depend on each other; ``decode``
    joins them, and ``refine`` aligns the masks with the image's edges.

    Example:
        >>> from rvos_edge.trainer.model.presets import model_config
        >>> model = HINet(config=model_config("test")).eval()
        >>> image = torch.zeros(1, 3, 64, 96)
        >>> lang = tuple(torch.ones(1, 2, c) for c in model.language_channels)   # two queries
        >>> model(image, torch.zeros(1, 2, 64, 96), lang).shape
        torch.Size([1, 2, 2, 16, 24])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone)
        self.aspp = build_aspp(config, self.backbone.channels[-1])
        self.sentence = SentenceEncoder(config=config.text)
        self.language = LanguageProjections(
            in_channels=config.text.hidden_size, channels=config.channels, hidden=config.text.projection_hidden
        )
        self.flow = FlowNetwork(config=config.raft) if config.raft is not None and config.flow != "none" else None

        used = range(4) if config.fusion == "hierarchical" else range(3, 4)
        self.used_levels = tuple(used)
        channels = [config.channels[i] for i in used]
        strides = tuple(self.backbone.strides[i] for i in used)
        inputs = [(*self.backbone.channels[:3], config.aspp_channels)[i] for i in used]
        self.vision = nn.ModuleList(
            VisionBranch(in_channels=in_c, channels=c, position=config.position and i == 3)
            for i, in_c, c in zip(used, inputs, channels, strict=True)
        )
        self.interaction = nn.ModuleList(
            Interaction(channels=c, gated=config.flow in ("gate", "both"), separable=i < config.separable_levels)
            for i, c in zip(used, channels, strict=True)
        )
        self.attention: Attention | None = None
        if config.attention_heads:
            self.attention = Attention(channels=channels[-1], heads=config.attention_heads)
        self.motion: MotionEncoder | None = None
        if config.flow != "none":
            assert config.raft is not None
            self.motion = MotionEncoder(
                in_stride=config.raft.scale, strides=strides, channels=tuple(channels), width=config.motion_channels
            )
        self.decoder = Decoder(
            channels=channels, widths=config.decoder_channels, separable_levels=config.separable_levels
        )
        self.presence: Presence | None = None
        if config.presence:
            self.presence = Presence(channels=channels[-1])
        self.boundary: GuidedFilter | None = None
        self._decoder_stride = strides[0]
        self.set_boundary(config.boundary)
        self.register_buffer("mean", 255.0 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def stride(self) -> int:
        """Stride of the logits of ``forward``, in pixels of the image."""
        return self._decoder_stride if self.boundary is None else self._decoder_stride // 2

    @property
    def decoder_stride(self) -> int:
        """Pixels of the image per pixel of the decoder's own logits."""
        return self._decoder_stride

    @property
    def language_channels(self) -> tuple[int, ...]:
        """Channels of the language vectors, c_1..c_4."""
        return self.config.channels

    @property
    def size_multiple(self) -> int:
        """Number of which the input's height and width must be multiples, so that all feature maps are whole."""
        cells = POOL * self.backbone.strides[-1] if self.attention is not None else 1
        return math.lcm(*self.backbone.strides, FLOW_STRIDE * self.flow.scale if self.flow is not None else 1, cells)

    @property
    def least_size(self) -> int:
        """Smallest height and width of the input."""
        return max(2 * self.size_multiple, self.flow.least_size if self.flow is not None else 0)

    def size_above(self, size: tuple[int, int]) -> tuple[int, int]:
        """The smallest input (height, width) that is no smaller than ``size``."""
        multiple = self.size_multiple
        height, width = (-(-max(extent, self.least_size) // multiple) * multiple for extent in size)
        return height, width

    def set_flow_scale(self, scale: int) -> None:
        """Set the factor by which the image is reduced before flow is computed.

        The flow field is resampled to the size of training, so that the motion encoder is not affected.
        """
        if self.flow is None:
            raise ValueError("this network has no flow")
        if scale not in FLOW_SCALES:
            raise ValueError(f"the flow's scale must be one of {', '.join(map(str, FLOW_SCALES))}, got {scale}")
        self.flow.scale = scale

    def set_boundary(self, boundary: Boundary) -> None:
        """Set the refinement of mask boundaries; it has no weights."""
        self.config = self.config.model_copy(update={"boundary": boundary})
        self.boundary = GuidedFilter() if boundary == "guided" else None

    def encode_image(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [B,3,H,W], RGB 0..255, uint8 or float -> C2, C3, C4 and ASPP's V4."""
        c2, c3, c4, c5 = self.features(image)
        return c2, c3, c4, self.aspp(c5)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [B,3,H,W], RGB 0..255, uint8 or float -> C2..C5 of the backbone."""
        levels: tuple[Tensor, ...] = self.backbone((image.float() - self.mean) / self.std)
        return levels

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> LanguageVectors:
        """Tokens int64 [N,L] -> l_1..l_4, each [N,c_i]."""
        levels: LanguageVectors = self.language(self.sentence(input_ids, attention_mask))
        return levels

    def condition(
        self, levels: Sequence[Tensor], flow: Tensor | None, camera: Tensor | None = None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
        """Vision and motion features that all queries share.

        Args:
            levels: C2, C3, C4, V4.
            flow: Flow [B,2,H/scale,W/scale] in pixels, zeros where it was not computed; ignored with ``flow: none``.
            camera: Statistics of the whole frame's flow where ``flow`` is a crop's, as in ``motion_image``.

        Returns:
            V_i and U_i of the used levels, each [B,c_i,h_i,w_i]; U_i is None without flow.

        Raises:
            ValueError: The config uses flow and none was given.
        """
        motions: Sequence[Tensor | None] = [None] * len(self.used_levels)
        if self.motion is not None:
            if flow is None:
                raise ValueError(f"flow: {self.config.flow} needs a flow field, got None; pass zeros to skip it")
            motions = self.motion(motion_image(flow, camera).to(levels[3].dtype))
        entering = motions if self.config.flow in ("vision", "both") else [None] * len(motions)
        visions = [
            vision(levels[index], motion)
            for index, vision, motion in zip(self.used_levels, self.vision, entering, strict=True)
        ]
        return visions, motions

    def answer(self, visions: Sequence[Tensor], motions: Sequence[Tensor | None], language: LanguageVectors) -> Tensor:
        """Interaction, motion gate, attention and decoder for Q queries, l_1..l_4 [B,Q,c_i].

        Returns logits float [B,Q,2,h,w] at the first used level's stride: background, object.
        """
        mixed = [
            interaction(vision, language[index], motion)
            for index, vision, interaction, motion in zip(
                self.used_levels, visions, self.interaction, motions, strict=True
            )
        ]
        if self.attention is not None:
            mixed[-1] = self.attention(mixed[-1])
        logits: Tensor = self.decoder(mixed)
        shaped: Tensor = logits.unflatten(0, language[0].shape[:2])  # type: ignore[no-untyped-call]
        return shaped

    def decode(self, levels: Sequence[Tensor], flow: Tensor | None, language: LanguageVectors) -> Tensor:
        """C2, C3, C4, V4, flow and l_i -> logits [B,Q,2,h,w]: ``condition``, then ``answer``."""
        return self.answer(*self.condition(levels, flow), language)

    def present(
        self, visions: Sequence[Tensor], flow: Tensor | None, language: LanguageVectors, logits: Tensor
    ) -> Tensor:
        """Probability that what each query names is in the frame, float32 [B,Q]; masks do not depend on it.

        ``visions`` are those of ``condition``, ``logits`` those of ``answer``.
        """
        if self.presence is None:
            raise ValueError("this network has no presence head; train one with task: presence")
        margin = logits[:, :, 1].float() - logits[:, :, 0].float()
        seen = flow if self.motion is not None else None
        return torch.sigmoid(self.presence(margin, visions[-1], language[-1], seen))

    def refine(self, image: Tensor, logits: Tensor) -> Tensor:
        """Align the logits of ``decode`` with the edges of the image [B,3,H,W] RGB 0..255: [B,Q,2,H/stride,W/stride].

        The identity unless ``boundary`` is set, and not part of training.
        """
        if self.boundary is None:
            return logits
        return self.boundary(F.avg_pool2d(image.float() / 255, self.stride), logits)  # type: ignore[no-any-return]

    def forward(self, image: Tensor, flow: Tensor | None, language: LanguageVectors) -> Tensor:
        """Image [B,3,H,W] RGB 0..255, flow [B,2,.,.] and l_i [B,Q,c_i] -> logits [B,Q,2,H/stride,W/stride]."""
        return self.refine(image, self.decode(self.encode_image(image), flow, language))
