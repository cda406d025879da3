"""Networks of other code bases, in their own names and in arithmetic written out here, with random weights.

What these networks compute is known from their papers: TSN (frames one by one, the mean of their scores), TSM (a
shift of 1/fold_div of the channels each way on the residual path), ResNet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """A residual network: blocks a stage, width of the first, and its stem's kernel."""

    depths: tuple[int, ...]
    width: int
    kernel: int
    bottleneck: bool

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    def blocks(self) -> Iterator[tuple[str, int, int, int]]:
        """(name, channels in, planes, stride) of each block."""
        inputs = self.width
        for stage, depth in enumerate(self.depths):
            planes = self.width * 2**stage
            for i in range(depth):
                yield f"layer{stage + 1}.{i}", inputs, planes, 2 if stage and i == 0 else 1
                inputs = planes * self.expansion

    def convs(self, block: str, inputs: int, planes: int) -> list[tuple[str, int, int, int]]:
        """(name, in, out, kernel) of the convolutions of a block."""
        if self.bottleneck:
            wide = planes * 4
            return [
                (f"{block}.conv1", inputs, planes, 1),
                (f"{block}.conv2", planes, planes, 3),
                (f"{block}.conv3", planes, wide, 1),
            ]
        return [(f"{block}.conv1", inputs, planes, 3), (f"{block}.conv2", planes, planes, 3)]


RESNETS = {
    "resnet14_tiny": Shape((1, 1, 1, 1), 8, 5, True),
    "resnet26_thin": Shape((2, 2, 2, 2), 16, 5, True),
    "resnet18": Shape((2, 2, 2, 2), 64, 7, False),
    "resnet50": Shape((3, 4, 6, 3), 64, 7, True),
}


@dataclass(frozen=True)
class Names:
    """How a code base names the parts of a residual network."""

    conv: Callable[[str, bool], str]
    """Of a convolution, behind a shift or not."""
    norm: Callable[[str], str]
    """Of the normalization that follows the convolution."""
    head: str


def _norm_of(conv: str) -> str:
    if conv.endswith("downsample"):
        return f"{conv}.1"
    head, _, last = conv.rpartition(".")
    return f"{head}.{last.replace('conv', 'bn')}".lstrip(".")


TSM = Names(
    lambda name, shifted: (
        f"module.base_model.{name}" + (".0" if name.endswith("downsample") else ".net" if shifted else "")
    ),
    lambda name: f"module.base_model.{_norm_of(name)}",
    "module.new_fc",
)
MMACTION2 = Names(
    lambda name, shifted: f"backbone.{name}.conv" + (".net" if shifted else ""),
    lambda name: f"backbone.{name}.bn",
    "cls_head.fc_cls",
)
LAYOUTS = {"tsm": TSM, "mmaction2": MMACTION2}


def random_state(
    shape: Shape,
    names: Names,
    *,
    num_classes: int = 5,
    channels: int = 3,
    shift_every: int = 0,
    seed: int = 0,
) -> State:
    """Random weights; every `shift_every`-th block of a stage shifts, none with 0."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def add(name: str, inputs: int, outputs: int, kernel: int, shifted: bool = False) -> None:
        scale = (2 / (inputs * kernel**2)) ** 0.5
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale
        state[f"{names.conv(name, shifted)}.weight"] = weight
        norm = names.norm(name)
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{norm}.{part}"] = torch.rand(outputs, generator=generator) + low
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("conv1", channels, shape.width, shape.kernel)
    for block, inputs, planes, stride in shape.blocks():
        shifted = bool(shift_every) and int(block.partition(".")[2]) % shift_every == 0
        for name, each, outputs, kernel in shape.convs(block, inputs, planes):
            add(name, each, outputs, kernel, shifted and name.endswith("conv1"))
        if stride != 1 or inputs != planes * shape.expansion:
            add(f"{block}.downsample", inputs, planes * shape.expansion, 1)
    width = shape.width * 8 * shape.expansion
    state[f"{names.head}.weight"] = torch.randn(num_classes, width, generator=generator) * 0.05
    state[f"{names.head}.bias"] = torch.randn(num_classes, generator=generator)
    return state


def original_logits(state: State, shape: Shape, names: Names, clip: Tensor, *, fold_div: int = 8) -> Tensor:
    """Logits `(B, classes)` of clips `(B, T, C, H, W)`, normalized as the original does it."""
    batch, num_frames = clip.shape[:2]

    def shift(x: Tensor) -> Tensor:
        x = x.unflatten(0, (batch, num_frames))
        moved, fold = x.clone(), x.shape[2] // fold_div
        for t in range(num_frames):
            later = x[:, t + 1, :fold] if t + 1 < num_frames else torch.zeros_like(x[:, 0, :fold])
            former = x[:, t - 1, fold : 2 * fold] if t else torch.zeros_like(x[:, 0, fold : 2 * fold])
            moved[:, t, :fold], moved[:, t, fold : 2 * fold] = later, former
        return moved.flatten(0, 1)

    def layer(x: Tensor, name: str, stride: int = 1) -> Tensor:
        behind_shift = f"{names.conv(name, True)}.weight"
        plain = f"{names.conv(name, False)}.weight"
        if behind_shift in state and behind_shift != plain:
            x = shift(x)
        weight = state[behind_shift] if behind_shift in state else state[plain]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, bias = (
            state[f"{names.norm(name)}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + bias

    x = layer(clip.flatten(0, 1), "conv1", 2).relu()
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    for block, inputs, planes, stride in shape.blocks():
        y, convs = x, [one[0] for one in shape.convs(block, inputs, planes)]
        where_strided = 1 if shape.bottleneck else 0
        for i, name in enumerate(convs):
            y = layer(y, name, stride if i == where_strided else 1)
            if i + 1 < len(convs):
                y = y.relu()
        has_downsample = stride != 1 or inputs != planes * shape.expansion
        x = (y + (layer(x, f"{block}.downsample", stride) if has_downsample else x)).relu()
    features = x.mean(dim=(2, 3))
    scores = features @ state[f"{names.head}.weight"].T + state[f"{names.head}.bias"]
    return scores.unflatten(0, (batch, num_frames)).mean(dim=1)
