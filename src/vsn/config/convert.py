"""How a checkpoint of another code base is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.data import Sampling, Source
from vsn.config.errors import require
from vsn.config.model import Modality
from vsn.config.training import Protocol

ClassOrder = Literal["auto", "file", "sorted"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What a checkpoint of another code base does not say of itself."""

    classes: str = ""
    """File of the class names: one a line, `1 name` or `name,0` lines, or JSON {name: label}. Without it the
    names in the checkpoint are taken, where it has any, else output_0, output_1, ..."""
    class_order: ClassOrder = "auto"
    """file: outputs are in the order of that file; sorted: in the order of sorted names. auto: the file's, but
    sorted for a checkpoint of TSM or TSN-PyTorch with the labels of Something-Something V1 or Jester, which
    those code bases sort."""
    num_frames: int = 0
    """T; 0: what the checkpoint says of itself, else 8."""
    shift_div: int = 0
    """1/shift_div of the channels shift each way; 0: what the checkpoint says of itself, else 8."""
    modality: Literal[Modality, "auto"] = "auto"
    """auto: told by the channels of the first convolution. 3: rgb; an even number 2L: flow; an odd 3L: rgbdiff."""
    bgr: bool = False
    """The original saw blue, green, red: its first convolution is turned round, and the run sees RGB."""
    sampling: Sampling = "segment"
    """How the original sampled frames: segment (Something-Something), dense (many of Kinetics)."""
    protocol: Protocol = "center"
    """How the run is tested unless `vsn eval --protocol` says otherwise."""
    source: Source = "folder"
    """The data set, as in data.source, for `vsn eval`."""
    root: str = ""
    """Its folder, as in data.root; `vsn eval --root` names it later too."""

    def __post_init__(self) -> None:
        require(
            self.num_frames >= 0,
            f"num_frames is {self.num_frames}; it counts from 1 (0: by the checkpoint).",
        )
        require(
            self.shift_div == 0 or self.shift_div >= 2,
            f"shift_div is {self.shift_div}; it must be 2 or more (0: by the checkpoint): two parts of 1/shift_div move.",
        )
        require(
            not (self.class_order == "sorted" and not self.classes),
            "class_order is 'sorted', and there is no file of class names to sort; name it with --classes FILE.",
        )
