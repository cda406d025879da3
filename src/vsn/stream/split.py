"""A 2D CNN cut before its temporal operations: what is computed of one frame alone, and what needs all of them.

The network is traced (`torch.fx`), and every step that depends on no temporal module belongs to the first
part: stem, blocks before the first temporal one, and in that block what stands beside or before its temporal
convolution. Both parts run the network's own modules in its own order.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from vsn.models.layers import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d, ShuffleLinear

_TEMPORAL = (ShuffleConv2d, ShuffleBatchNorm2d, ShiftConv2d, ShuffleLinear)
_TRIAL_SIZE = 64
_TRIAL_TOLERANCE = 1e-3


class CannotSplitError(ValueError):
    """A network that cannot be cut; the message says why."""


@dataclass(frozen=True)
class SplitBackbone:
    """The two parts of a backbone.

    Attributes:
        frame_part: frames ``(N, C, H, W)`` to what the other part needs of them: tensors ``(N, ...)``.
        clip_part: those tensors, of the T frames of each clip, to features ``(B*T, D)``.
        first_temporal: name of the first temporal module; "" where there is none (TSN).
    """

    frame_part: fx.GraphModule
    clip_part: fx.GraphModule
    first_temporal: str

    def __call__(self, frames: Tensor) -> Tensor:
        """Features ``(B*T, D)`` of frames ``(B*T, C, H, W)``, as the backbone gives them."""
        features: Tensor = self.clip_part(*self.frame_part(frames))
        return features


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _TEMPORAL) or super().is_leaf_module(m, module_qualified_name)


def split_backbone(backbone: nn.Module, *, channels: int = 3) -> SplitBackbone:
    """Cut a backbone, in evaluation mode, before its first temporal module. It is left as it was.

    The parts are tried on noise against the whole.

    Args:
        backbone: maps frames ``(B*T, channels, H, W)`` to features ``(B*T, D)``.
        channels: of a frame.

    Raises:
        CannotSplitError: it cannot be traced, or its parts do not give what the whole gives.
    """
    assert not backbone.training, "batch normalization of a training network mixes frames"
    try:
        graph = _Tracer().trace(backbone)
    except Exception as error:  # whatever the network's own code raises of tensors without values
        raise CannotSplitError(f"it cannot be traced ({' '.join(str(error).split())[:200]})") from error
    _write_nothing_in_place(graph)
    modules = dict(backbone.named_modules())
    mixed: set[fx.Node] = set()
    first_temporal, num_frames = "", 2
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(module := modules[str(node.target)], _TEMPORAL):
            first_temporal = first_temporal or str(node.target)
            num_frames = module.num_frames
            mixed.add(node)
        elif any(source in mixed for source in node.all_input_nodes):
            mixed.add(node)
    first, second = _cut(graph, mixed)
    found = SplitBackbone(_module(backbone, first), _module(backbone, second), first_temporal)
    _try_out(found, backbone, num_frames, channels)
    return found


def _write_nothing_in_place(graph: fx.Graph) -> None:
    """What is written in place could be what is kept for the next window."""
    for node in graph.nodes:
        if node.op == "call_function" and node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        elif node.op == "call_method" and str(node.target).endswith("_"):
            raise CannotSplitError(f"it writes in place ({node.name})")


def _cut(graph: fx.Graph, mixed: set[fx.Node]) -> tuple[fx.Graph, fx.Graph]:
    """The graph of the steps that are not in `mixed`, whose outputs are the inputs of the graph of those that are."""
    last = next(node for node in graph.nodes if node.op == "output")
    second_steps = mixed | {last}
    # Steps on weights alone say nothing of a frame: each part takes those that it needs.
    on_weights: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "placeholder" and all(source in on_weights for source in node.all_input_nodes):
            on_weights |= {node} - second_steps
    crossing = [
        node
        for node in graph.nodes
        if node not in second_steps | on_weights and any(user in second_steps for user in node.users)
    ]
    first, second = fx.Graph(), fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    again = {node: second.placeholder(node.name) for node in crossing}
    for node in graph.nodes:
        if node not in second_steps:
            made[node] = first.node_copy(node, lambda old: made[old])
        if node in second_steps | on_weights:
            again[node] = second.node_copy(node, lambda old: again[old])
    first.output(tuple(made[node] for node in crossing))
    return first, second


def _module(backbone: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The graph with the backbone's own modules, but for activations that write in place: copies that do not."""
    module = fx.GraphModule(backbone, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    for name in {str(node.target) for node in module.graph.nodes if node.op == "call_module"}:
        part = module.get_submodule(name)
        if getattr(part, "inplace", False):
            changed = copy.copy(part)
            changed.inplace = False  # type: ignore[assignment]
            parent, _, child = name.rpartition(".")
            holder = module.get_submodule(parent)
            setattr(holder, child, changed)
    return module.eval()


@torch.inference_mode()
def _try_out(found: SplitBackbone, backbone: nn.Module, num_frames: int, channels: int) -> None:
    weight = next(backbone.parameters())
    noise = torch.randn(num_frames, channels, _TRIAL_SIZE, _TRIAL_SIZE, generator=torch.Generator().manual_seed(0)).to(
        weight
    )
    try:
        parts = [found.frame_part(one[None]) for one in noise]
        if not all(isinstance(value, Tensor) and len(value) == 1 for part in parts for value in part):
            raise CannotSplitError("what its first part gives is not a tensor for each frame")
        joined = found.clip_part(*(torch.cat(values) for values in zip(*parts, strict=True)))
        whole = backbone(noise)
    except RuntimeError as error:
        raise CannotSplitError(f"its parts do not run ({' '.join(str(error).split())[:200]})") from error
    if joined.shape != whole.shape or (joined - whole).abs().max() > _TRIAL_TOLERANCE * whole.abs().max():
        raise CannotSplitError("its parts do not give what the whole gives")
