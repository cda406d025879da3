"""Convolutions and normalizations that exchange or shift channels between frames."""

from __future__ import annotations

from torch import Tensor, nn

from vsn.ops import temporal_shift, video_shuffle


class ShuffleConv2d(nn.Conv2d):
    """A convolution between a video shuffle and its inverse (compact block, paper section 3.2).

    With ``unshuffle`` off it only shuffles its input: the head of a headtail block.
    """

    num_frames: int
    unshuffle: bool

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(B*T, C_in, H, W)`` to ``(B*T, C_out, H', W')``."""
        frames = super().forward(video_shuffle(frames, self.num_frames))
        return video_shuffle(frames, self.num_frames) if self.unshuffle else frames

    def extra_repr(self) -> str:
        """The convolution's own, and T."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}, unshuffle={self.unshuffle}"


class ShuffleBatchNorm2d(nn.BatchNorm2d):
    """A batch normalization followed by the (inverse) shuffle: the tail of a headtail block."""

    num_frames: int

    def forward(self, frames: Tensor) -> Tensor:
        """Shuffled frames ``(B*T, C, H, W)`` to frames in their own order."""
        return video_shuffle(super().forward(frames), self.num_frames)


class ShiftConv2d(nn.Conv2d):
    """A convolution after a zero-padded temporal shift (residual TSM)."""

    num_frames: int
    shift_div: int

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(B*T, C_in, H, W)`` to ``(B*T, C_out, H', W')``."""
        return super().forward(temporal_shift(frames, self.num_frames, self.shift_div))

    def extra_repr(self) -> str:
        """The convolution's own, T and the share of channels shifted."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}, shift_div={self.shift_div}"


class ShuffleLinear(nn.Linear):
    """A linear layer between a video shuffle and its inverse. Ours, not the paper's (`vsn.models.blocks`)."""

    num_frames: int

    def forward(self, frames: Tensor) -> Tensor:
        """Frames with channels last, ``(B*T, H, W, C_in)``, to ``(B*T, H, W, C_out)``."""
        # Seen as (B*T, C, H, W) they are in PyTorch's channels-last format, which the shuffle keeps.
        shuffled = video_shuffle(frames.movedim(3, 1), self.num_frames).movedim(1, 3)
        return video_shuffle(super().forward(shuffled).movedim(3, 1), self.num_frames).movedim(1, 3)

    def extra_repr(self) -> str:
        """The layer's own, and T."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}"
