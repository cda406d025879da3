"""Split a 2D CNN at its temporal operations: the part that sees one frame at a time, and the part that needs all.

The network is traced (`torch.fx`). Every step that depends on no temporal module belongs to the first part: the stem,
the blocks before the first temporal one, and in that block what is parallel to or before its temporal
convolution. Both parts run the modules of the network in their order.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from vsn.models.layers import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d, ShuffleLinear
from vsn.models.peers.cpnet import CorrespondenceProposal

_TEMPORAL = (ShuffleConv2d, ShuffleBatchNorm2d, ShiftConv2d, ShuffleLinear, CorrespondenceProposal)
_CHECK_SIZE = 64
_CHECK_TOLERANCE = 1e-3


class CannotSplitError(ValueError):
    """A network that cannot be split; the message says why."""


@dataclass(frozen=True)
class SplitBackbone:
    """The two parts of a backbone."""

    frame_part: fx.GraphModule
    """Maps frames ``(N, C, H, W)`` to the tensors ``(N, ...)`` that the other part takes."""
    clip_part: fx.GraphModule
    """Maps those tensors, of the T frames of each clip, to features ``(B*T, D)``."""
    first_temporal: str
    """Name of the first temporal module; "" if there is none (TSN)."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _TEMPORAL) or super().is_leaf_module(m, module_qualified_name)


def split_backbone(backbone: nn.Module, *, channels: int = 3) -> SplitBackbone:
    """Split a backbone in evaluation mode before its first temporal module, without changing it.

    It maps frames ``(B*T, channels, H, W)`` to features ``(B*T, D)``. The parts are compared with the whole on random
    frames: tracing cannot see every way in which frames mix.

    Raises:
        CannotSplitError: the backbone cannot be traced, or its parts differ from the whole.
    """
    assert not backbone.training, "batch normalization mixes frames in training mode"
    # Temporal modules stay single nodes of the graph (leaves), so that the cut can find them.
    try:
        graph = _Tracer().trace(backbone)
    except Exception as error:  # model code may raise anything when given tensors without values
        raise CannotSplitError(f"it cannot be traced ({' '.join(str(error).split())[:200]})") from error
    _disable_inplace(graph)
    modules = dict(backbone.named_modules())
    # Nodes are in the order of execution, so one pass finds everything downstream of a temporal module.
    mixed: set[fx.Node] = set()
    first_temporal, num_frames = "", 2
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(module := modules[str(node.target)], _TEMPORAL):
            first_temporal = first_temporal or str(node.target)
            num_frames = module.num_frames
            mixed.add(node)
        elif any(source in mixed for source in node.all_input_nodes):
            mixed.add(node)
    frame_graph, clip_graph = _cut(graph, mixed)
    split = SplitBackbone(_module(backbone, frame_graph), _module(backbone, clip_graph), first_temporal)
    _check(split, backbone, num_frames, channels)
    return split


def _disable_inplace(graph: fx.Graph) -> None:
    # Writing in place could change features that are kept for the next window.
    for node in graph.nodes:
        if node.op == "call_function" and node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        elif node.op == "call_method" and str(node.target).endswith("_"):
            raise CannotSplitError(f"it writes in place ({node.name})")


def _cut(graph: fx.Graph, mixed: set[fx.Node]) -> tuple[fx.Graph, fx.Graph]:
    """Return the graph of the nodes not in `mixed`, and that of the others, whose inputs are the first one's outputs."""
    output = next(node for node in graph.nodes if node.op == "output")
    second_nodes = mixed | {output}
    # Nodes that depend only on weights have no batch dimension: each part computes those that it needs.
    on_weights: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "placeholder" and all(source in on_weights for source in node.all_input_nodes):
            on_weights |= {node} - second_nodes
    crossing = [
        node
        for node in graph.nodes
        if node not in second_nodes | on_weights and any(user in second_nodes for user in node.users)
    ]
    first, second = fx.Graph(), fx.Graph()
    first_copies: dict[fx.Node, fx.Node] = {}
    second_copies = {node: second.placeholder(node.name) for node in crossing}
    # What depends only on weights is copied into both parts, each step in its order.
    for node in graph.nodes:
        if node not in second_nodes:
            first_copies[node] = first.node_copy(node, lambda old: first_copies[old])
        if node in second_nodes | on_weights:
            second_copies[node] = second.node_copy(node, lambda old: second_copies[old])
    first.output(tuple(first_copies[node] for node in crossing))
    return first, second


def _module(backbone: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Return the graph with the backbone's modules; activations that write in place become copies that do not."""
    module = fx.GraphModule(backbone, graph)
    # The copies of weight-only nodes that this part does not use.
    module.graph.eliminate_dead_code()
    module.recompile()
    for name in {str(node.target) for node in module.graph.nodes if node.op == "call_module"}:
        part = module.get_submodule(name)
        if getattr(part, "inplace", False):
            # A shallow copy: the backbone itself must not change, and weights are shared.
            changed = copy.copy(part)
            changed.inplace = False  # type: ignore[assignment]
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, changed)
    return module.eval()


@torch.inference_mode()
def _check(split: SplitBackbone, backbone: nn.Module, num_frames: int, channels: int) -> None:
    weight = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(num_frames, channels, _CHECK_SIZE, _CHECK_SIZE, generator=generator).to(weight)
    # One frame at a time, as the scorer does: a first part that mixes frames then shows.
    try:
        parts = [split.frame_part(frame[None]) for frame in frames]
        if not all(isinstance(value, Tensor) and len(value) == 1 for part in parts for value in part):
            raise CannotSplitError("the output of its first part is not a tensor per frame")
        joined = split.clip_part(*(torch.cat(values) for values in zip(*parts, strict=True)))
        whole = backbone(frames)
    except RuntimeError as error:
        raise CannotSplitError(f"its parts do not run ({' '.join(str(error).split())[:200]})") from error
    if joined.shape != whole.shape or (joined - whole).abs().max() > _CHECK_TOLERANCE * whole.abs().max():
        raise CannotSplitError("its parts do not give the output of the whole")
