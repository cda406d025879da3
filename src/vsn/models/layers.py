"""Define the layers that exchange or shift channels between frames.

Each is a subclass of the layer it replaces and overrides only ``forward``, so that every weight keeps the backbone's name
and shape. `vsn.models.insertion` converts layers to these.
"""

from __future__ import annotations

from torch import Tensor, nn

from vsn.ops import shifted_in_place, temporal_shift, video_shuffle, worth_shifting_in_place


class ShuffleConv2d(nn.Conv2d):
    """A convolution between a video shuffle and its inverse (compact block, paper section 3.2).

    Without ``unshuffle`` it only shuffles its input: the head of a headtail block.
    """

    num_frames: int
    unshuffle: bool

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(B*T, C_in, H, W)`` to ``(B*T, C_out, H', W')``."""
        # After the shuffle each frame holds a channel group of every frame, so that the convolution mixes all of them.
        frames = super().forward(video_shuffle(frames, self.num_frames))
        return video_shuffle(frames, self.num_frames) if self.unshuffle else frames

    def extra_repr(self) -> str:
        """Add T to the convolution's settings."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}, unshuffle={self.unshuffle}"


class ShuffleBatchNorm2d(nn.BatchNorm2d):
    """A batch normalization followed by the shuffle, which is its own inverse: the tail of a headtail block."""

    num_frames: int

    def forward(self, frames: Tensor) -> Tensor:
        """Shuffled frames ``(B*T, C, H, W)`` to unshuffled frames."""
        return video_shuffle(super().forward(frames), self.num_frames)


class ShiftConv2d(nn.Conv2d):
    """A convolution after a zero-padded temporal shift (residual TSM)."""

    num_frames: int
    shift_div: int

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(B*T, C_in, H, W)`` to ``(B*T, C_out, H', W')``."""
        if not worth_shifting_in_place(frames):
            return super().forward(temporal_shift(frames, self.num_frames, self.shift_div))
        # The block's shortcut still needs the frames as they are.
        with shifted_in_place(frames, self.num_frames, self.shift_div):
            return super().forward(frames)

    def extra_repr(self) -> str:
        """Add T and shift_div to the convolution's settings."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}, shift_div={self.shift_div}"


class ShuffleLinear(nn.Linear):
    """A linear layer between a video shuffle and its inverse: a 1x1 convolution of ConvNeXt (ours, not the paper's)."""

    num_frames: int

    def forward(self, frames: Tensor) -> Tensor:
        """Frames with channels last, ``(B*T, H, W, C_in)``, to ``(B*T, H, W, C_out)``."""
        # Viewed as (B*T, C, H, W) these are channels-last frames; the shuffle preserves that format, so nothing is copied.
        shuffled = video_shuffle(frames.movedim(3, 1), self.num_frames).movedim(1, 3)
        return video_shuffle(super().forward(shuffled).movedim(3, 1), self.num_frames).movedim(1, 3)

    def extra_repr(self) -> str:
        """Add T to the layer's settings."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}"
