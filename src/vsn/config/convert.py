"""Define how a checkpoint of another code base is converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.data import Sampling, Source
from vsn.config.errors import check_range, require
from vsn.config.model import Modality
from vsn.config.training import Protocol

ClassOrder = Literal["auto", "file", "sorted"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings that a checkpoint of another code base does not contain."""

    classes: str = ""
    """File of the class names: one a line, `1 name` or `name,0` lines, or JSON {name: label}. Default: the
    names in the checkpoint, if any, else output_0, output_1, ..."""
    class_order: ClassOrder = "auto"
    """file: outputs are in the order of that file; sorted: in the order of sorted names. auto: the file's, but
    sorted for a checkpoint of TSM or TSN-PyTorch with the labels of Something-Something V1 or Jester, which
    those code bases sort."""
    num_frames: int = 0
    """T; 0: as the checkpoint states, else 8."""
    shift_div: int = 0
    """1/shift_div of the channels shift each way; 0: as the checkpoint states, else 8."""
    modality: Literal[Modality, "auto"] = "auto"
    """auto: by the channels of the first convolution. 3: rgb; an even number 2L: flow; an odd 3L: rgbdiff."""
    bgr: bool = False
    """The original takes BGR: its first convolution is flipped, and the run takes RGB."""
    sampling: Sampling = "segment"
    """How the original sampled frames: segment (Something-Something), dense (many of Kinetics)."""
    protocol: Protocol = "center"
    """Default protocol of `vsn eval`."""
    source: Source = "folder"
    """The data set, as in data.source, for `vsn eval`."""
    root: str = ""
    """Its folder, as in data.root; can be given later with `vsn eval --root`."""

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "num_frames", "shift_div")
        # 1/shift_div of the channels move each way, hence at least 2.
        require(
            self.shift_div != 1,
            f"shift_div is {self.shift_div}; it must be at least 2, or 0 (as the checkpoint states).",
        )
        require(
            self.class_order != "sorted" or bool(self.classes),
            "class_order is 'sorted', but there is no file of class names to sort. Pass --classes FILE.",
        )
