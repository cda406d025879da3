"""Build NL-I3D + GCN: the boxes of objects are nodes of graphs, beside a non-local I3D on the whole clip.

Source: Wang and Gupta, "Videos as Space-Time Region Graphs", ECCV 2018. There is no code of the authors. The I3D is
`nl-i3d-fine`; its features are reduced to a quarter of their channels. Each box of every second frame is a node: RoIAlign
of 7x7 on the features of its step, and their maximum. Two branches of three layers pass values between the nodes:

- similarity: every node takes from every other, weighted by the softmax of the products of two linear maps;
- space and time: a node takes from the boxes of the next step that it overlaps, weighted by their intersection over union
  divided by the sum of all, and by other weights from those of the step before.

A layer is ``Z = ReLU(LN(G X W))``, to which X is added in the first two; the place of the sum is our reading. The last
layer of a branch has no ReLU and a scale of LN that starts at zero, so that a new network scores as its I3D. (The paper
starts the last weights at zero, behind a ReLU; there no gradient would ever arrive.) The sum of both branches is averaged
over the nodes and follows the average of the whole clip's features: what the classifier sees.

Boxes come with the clip, as planes (`vsn.data.boxes`): a detector's region proposals, or boxes from a file. A node without a
box is left out of the graphs and of the average; without any, a clip is what the I3D sees of it.

| 32 frames of 224x224, 174 classes | parameters | multiply-adds, two clips |
|---|---|---|
| the I3D with non-local blocks, 400 classes | 35.40M (published 35.3M) | 441.7G (335G) |
| with the graphs, without the detector | 38.70M | 449.5G |
| with torchvision's proposals of a ResNet-50-FPN | 66.1M | + 9.4G a frame of 224x224 |
| published (the VSN paper, Table 2) | 62.2M | 605G |

62.2M fit NL-I3D and a ResNet-50 with its feature pyramid (26.8M), without graphs and the detector's head. 605G are two
clips of 303G; of the difference to NL-I3D we know no decomposition.

`resnet26_thin` is ours: for training without a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsn.config import ConfigError, ModelConfig
from vsn.models.classifier import VolumeClassifier
from vsn.models.peers.i3d import PLANS
from vsn.models.peers.non_local import PLACES, Attention, insert_nonlocal
from vsn.models.peers.resnet3d import SHAPES, ResNet3d

MIN_FRAMES = 3
"""Time is halved once, rounding up; with fewer frames no box would have a step before or after it."""
_COLORS = 3
_REDUCTION = 4
_NUM_LAYERS = 3
_BINS, _SAMPLES = 7, 2
"""RoIAlign: bins of a box along each axis, and points of a bin."""
_WEIGHT_STD = 1e-3
_SMALLEST_SHARE = 0.5
"""A box of which a crop leaves less than this of a pixel is left out."""


def build(config: ModelConfig) -> VolumeClassifier:
    """Build ``gcn_{backbone}``.

    Raises:
        ConfigError: too few frames.
    """
    if config.num_frames < MIN_FRAMES:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; {config.name} halves time, and its graphs pass values between steps: "
            f"use at least {MIN_FRAMES}."
        )
    body = RegionGraphNet(config.backbone, attention=Attention.of(config))
    return VolumeClassifier(body, config, feature_dim=body.feature_dim)


def boxes_of_planes(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Find the box that each plane shows.

    Args:
        planes: the share of each pixel that is inside of the box, in [0, 1], ``(..., H, W)``; zero where there is none.

    Returns:
        Left, top, right and bottom as shares of the frame, float32 or wider ``(..., 4)``, and whether there is a box,
        ``(...)``.
    """
    planes = planes.to(torch.promote_types(planes.dtype, torch.float32))
    (left, right), (top, bottom) = (_interval(planes.amax(dim=axis)) for axis in (-2, -1))
    return torch.stack([left, top, right, bottom], dim=-1), planes.amax(dim=(-2, -1)) >= _SMALLEST_SHARE


def _interval(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return both ends of an interval, as shares, from how much of each pixel ``(..., length)`` is inside."""
    # Less than 1 everywhere: along the other axis the box has less than a pixel.
    inside = inside / inside.amax(dim=-1, keepdim=True).clamp_min(1e-6)
    # Sum and mean place do not change when the edges were blurred by resizing.
    length = inside.shape[-1]
    middles = (torch.arange(length, device=inside.device, dtype=inside.dtype) + 0.5) / length
    pixels = inside.sum(dim=-1)
    center = (inside * middles).sum(dim=-1) / pixels.clamp_min(1e-6)
    half = pixels / (2 * length)
    return (center - half).clamp(0, 1), (center + half).clamp(0, 1)


def region_features(maps: Tensor, boxes: Tensor) -> Tensor:
    """Return the maximum of RoIAlign (7x7 bins of 2x2 points) in each box.

    Args:
        maps: ``(N, C, H, W)``.
        boxes: left, top, right, bottom as shares of the map, ``(N, K, 4)``.

    Returns:
        ``(N, K, C)``, of the maps' dtype.
    """
    points = _BINS * _SAMPLES
    steps = (torch.arange(points, device=boxes.device, dtype=boxes.dtype) + 0.5) / points
    x, y = (boxes[..., i, None] + (boxes[..., i + 2] - boxes[..., i])[..., None] * steps for i in (0, 1))  # (N, K, 14)
    grid = torch.stack(torch.broadcast_tensors(x[:, :, None], y[..., None]), dim=-1)  # (N, K, 14, 14, 2)
    # Not in half precision, in which places would be coarse. -1 and 1 are the borders of the map.
    sampled = functional.grid_sample(
        maps.to(boxes.dtype), 2 * grid.flatten(1, 2) - 1, padding_mode="border", align_corners=False
    )
    bins = functional.avg_pool2d(sampled, _SAMPLES)  # (N, C, K * 7, 7)
    return bins.unflatten(2, (-1, _BINS)).amax(dim=(3, 4)).transpose(1, 2).to(maps.dtype)


def overlaps(boxes: Tensor) -> Tensor:
    """Return the intersection over union of all pairs of boxes, ``(B, R, 4)`` to ``(B, R, R)``; 0 of empty ones."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp_min(0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(dim=-1)
    return shared / (areas[:, :, None] + areas[:, None] - shared).clamp_min(1e-9)


def time_graphs(boxes: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Connect the boxes of neighboring steps that overlap.

    Args:
        boxes: ``(B, T, K, 4)``.
        shown: which of them exist, ``(B, T, K)``.

    Returns:
        The graph from each step to the next and the one to the step before, ``(B, T * K, T * K)``: rows sum to 1, or are 0
        for a box that overlaps none.
    """
    num_steps, num_boxes = boxes.shape[1:3]
    weights = overlaps(boxes.flatten(1, 2)) * _pairs(shown)
    steps = torch.arange(num_steps, device=boxes.device).repeat_interleave(num_boxes)
    ahead = steps[None] - steps[:, None]
    forward, backward = (weights * (ahead == step) for step in (1, -1))
    return _rows_to_one(forward), _rows_to_one(backward)


def _pairs(shown: Tensor) -> Tensor:
    nodes = shown.flatten(1)
    return nodes[:, :, None] & nodes[:, None]


def _rows_to_one(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=2, keepdim=True).clamp_min(1e-9)


class GraphLayer(nn.Module):
    """One layer on graphs: the sum of ``G X W`` of each graph, normalized.

    Args:
        channels: of the nodes.
        num_graphs: graphs that have weights of their own.
        last: the last layer of a branch, which starts at zero.
    """

    def __init__(self, channels: int, *, num_graphs: int, last: bool) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(num_graphs))
        self.norm = nn.LayerNorm(channels)
        self.last = last
        for linear in self.weights:
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=_WEIGHT_STD)
        if last:
            nn.init.zeros_(self.norm.weight)

    def forward(self, nodes: Tensor, graphs: tuple[Tensor, ...]) -> Tensor:
        """Nodes ``(B, R, C)`` and graphs ``(B, R, R)`` to ``(B, R, C)``."""
        passed = [graph @ linear(nodes) for graph, linear in zip(graphs, self.weights, strict=True)]
        new = self.norm(sum(passed[1:], passed[0]))
        return new if self.last else nodes + functional.relu(new)


class RegionGraph(nn.Module):
    """The two branches of graphs on the boxes of a clip; see the module's docstring."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Linear(channels, channels, bias=False)
        self.phi = nn.Linear(channels, channels, bias=False)
        for linear in (self.theta, self.phi):
            nn.init.normal_(linear.weight, std=_WEIGHT_STD)
        last = _NUM_LAYERS - 1
        self.similarity = nn.ModuleList(GraphLayer(channels, num_graphs=1, last=i == last) for i in range(_NUM_LAYERS))
        self.time = nn.ModuleList(GraphLayer(channels, num_graphs=2, last=i == last) for i in range(_NUM_LAYERS))

    def similarity_graph(self, nodes: Tensor, shown: Tensor) -> Tensor:
        """Weight every node ``(B, R, C)`` by every other: ``(B, R, R)``, rows that sum to 1; 0 where one is not shown."""
        products = self.theta(nodes) @ self.phi(nodes).transpose(1, 2)
        wide = products.to(torch.promote_types(products.dtype, torch.float32))
        pairs = _pairs(shown)
        # Not -inf: the rows of nodes that are not shown would be NaN.
        weights = wide.masked_fill(~pairs, torch.finfo(wide.dtype).min).softmax(dim=2) * pairs
        return weights.to(nodes.dtype)

    def forward(self, nodes: Tensor, boxes: Tensor, shown: Tensor) -> Tensor:
        """Pass values between the nodes of a clip, and average them.

        Args:
            nodes: ``(B, T, K, C)``.
            boxes: ``(B, T, K, 4)``.
            shown: which nodes exist, bool ``(B, T, K)``.

        Returns:
            ``(B, C)``; zero for a clip without boxes.
        """
        graphs = {
            "similarity": (self.similarity_graph(nodes.flatten(1, 2), shown),),
            "time": tuple(graph.to(nodes.dtype) for graph in time_graphs(boxes, shown)),
        }
        total = torch.zeros_like(nodes.flatten(1, 2))
        for branch, of_branch in graphs.items():
            values = nodes.flatten(1, 2)
            for layer in self.get_submodule(branch).children():
                values = layer(values, of_branch)
            total = total + values
        exists = shown.flatten(1)[..., None].to(total.dtype)
        return (total * exists).sum(dim=1) / exists.sum(dim=1).clamp_min(1)


class RegionGraphNet(ResNet3d):
    """A volume with its boxes, ``(B, 3 + K, T, H, W)``, to features ``(B, D, 1, 1, 1)``.

    The convolutions have the names of `nl-i3d-fine`, whose runs and image weights it takes.

    Args:
        name: of the 2D network.
        attention: of the non-local blocks.
    """

    def __init__(self, name: str, *, attention: Attention) -> None:
        super().__init__(SHAPES[name], PLANS["i3d-fine"])
        insert_nonlocal(self, PLACES[name], attention=attention)
        channels = self.feature_dim // _REDUCTION
        self.reduce = nn.Conv3d(self.feature_dim, channels, 1)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="relu")
        self.graph = RegionGraph(channels)
        self.feature_dim = 2 * channels

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the features: the average of the clip's, then that of the graphs'."""
        features = self.reduce(super().forward(volume[:, :_COLORS]))  # (B, C, T', h, w)
        # As many steps as pooling leaves: those of frames 0, 2, 4, ...
        boxes, shown = boxes_of_planes(volume[:, _COLORS:, ::2].transpose(1, 2))  # (B, T', K, 4), (B, T', K)
        maps = features.transpose(1, 2).flatten(0, 1)
        nodes = region_features(maps, boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
        graph = self.graph(nodes, boxes, shown)
        return torch.cat([features.mean(dim=(2, 3, 4)), graph], dim=1)[:, :, None, None, None]
