"""Name our network, recipe and the published figures of every row of the paper's tables, and count their costs.

    python docs/scripts/paper_rows.py           # counts every network into results/paper-costs.json
    python docs/scripts/page_tables.py          # writes the tables into docs/paper-rows.md

A network that cannot be built by this version is counted as null, and its row says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vsn.ablation.paper_tables import PAPER_BLOCKS, PAPER_FLOW, PAPER_MODELS, PAPER_NUM_BLOCKS
from vsn.bench.tables import PAPER_TABLE_6
from vsn.config import STAGES, ConfigError, ModelConfig
from vsn.models import build_model
from vsn.models.blocks import residual_blocks
from vsn.models.layers import ShiftConv2d, ShuffleConv2d
from vsn.models.measure import count_multiply_adds, count_parameters

ROOT = Path(__file__).parents[2]
COSTS = ROOT / "results" / "paper-costs.json"


@dataclass(frozen=True)
class Network:
    """A network of a row. `classes` are those that the published parameters fit: 400 of Kinetics or the data set's own."""

    name: str
    num_frames: int = 8
    size: int = 224
    classes: int = 400
    clips: int = 1
    flow_fields: int = 0
    """Flow fields in a segment; 0: RGB."""
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Its name in the file of costs: "eco, 16x224, 400 classes"."""
        flow = f", flow {self.num_frames}x{self.flow_fields}" if self.flow_fields else ""
        changed = "".join(f", {name} {value}" for name, value in self.settings)
        return f"{self.name}, {self.num_frames}x{self.size}, {self.classes} classes{flow}{changed}"

    @property
    def config(self) -> ModelConfig:
        """Raises `ConfigError` if this version has no such model."""
        flow = {"modality": "flow", "flow_length": self.flow_fields} if self.flow_fields else {}
        return ModelConfig(
            name=self.name, num_classes=self.classes, num_frames=self.num_frames, **flow, **dict(self.settings)
        )


@dataclass(frozen=True)
class Row:
    """A row of a table of the paper."""

    label: str
    """As the paper names it, with its backbone or frames where two rows share a name."""
    networks: tuple[Network, ...]
    """One; several are fused."""
    accuracy: str
    """The paper's, in the order of its columns."""
    recipes: tuple[str, ...] = ()
    parameters: float | None = None
    """Published, millions."""
    multiply_adds: float | None = None
    """Published, billions."""
    note: str = ""
    """The cause of a difference, and what else the row needs."""


def _bn(kind: str, classes: int = 400, flow: int = 0) -> Network:
    return Network(f"{kind}_bn_inception", classes=classes, flow_fields=flow)


_ECO_LITE = tuple(Network("eco_lite", num_frames) for num_frames in (16, 20, 24, 32))
_ECO_LITE_FLOW = tuple(Network("eco_lite", num_frames, flow_fields=5) for num_frames in (16, 20, 24, 32))
_R50, _R101 = Network("vsn_resnet50"), Network("vsn_resnet101", classes=174)
_R50_FLOW, _R101_FLOW = Network("vsn_resnet50", flow_fields=5), Network("vsn_resnet101", classes=174, flow_fields=5)
_TSM16, _TSM16_FLOW = Network("tsm_resnet50", 16), Network("tsm_resnet50", 16, flow_fields=5)
_V = "paper-something-v"
_FLOW_COST = "The paper repeats RGB's multiply-adds; a first convolution of 10 channels costs 2.2G more."
_FUSED = "Fuse with `vsn fuse`."

TABLE_2 = (
    Row("TSN", (_bn("tsn"),), "19.5, -, 33.4, -", (f"{_V}1-bn-inception-tsn",), 10.7, 16,
        "BN-Inception; the paper's other tables compare with TSN on ResNet-50, 20.2%. The published multiply-adds are cut, "
        "not rounded: 16.3G."),
    Row("TRN-Multiscale", (_bn("mtrn"),), "34.4, 33.6, 48.8, 50.9", (f"{_V}1-bn-inception-mtrn",), 18.3, 16,
        "The published parameters count the layers of the scales 2 to 7 three times, once for each tuple of frames drawn in "
        "training: 13.55M + 2 x 2.39M = 18.32M. The published multiply-adds are cut, not rounded."),
    Row("Two-stream TRN", (_bn("mtrn"), _bn("mtrn", flow=5)), "42.0, 40.7, 55.5, 56.2",
        (f"{_V}1-bn-inception-mtrn", f"{_V}1-flow-8x5-bn-inception-mtrn"), 36.6, None,
        f"As TRN-Multiscale, twice. {_FUSED}"),
    Row("ECO", (Network("eco", 16),), "41.4, -, -, -", (f"{_V}1-eco",), 47.5, 64),
    Row("ECO_En_Lite", _ECO_LITE, "46.4, 42.3, -, -", (f"{_V}1-eco-lite",), 150, 267,
        "`vsn ablate paper-something-v1-eco-lite --ensemble eco-en-lite`."),
    Row("ECO_En_Lite R+F", (*_ECO_LITE, *_ECO_LITE_FLOW), "49.5, 43.9, -, -", (f"{_V}1-eco-lite",), 300, None,
        "The same with `--ensemble eco-en-lite-rf`."),
    Row("I3D", (Network("i3d-fine_resnet50", 32, clips=2),), "41.6, -, -, -", (f"{_V}1-i3d",), 28.0, 306,
        "Two clips of 32 frames."),
    Row("NL-I3D", (Network("nl-i3d-fine_resnet50", 32, clips=2),), "44.4, -, -, -", (f"{_V}1-nl-i3d",), 35.3, 335,
        "Two clips of 32 frames. Five non-local blocks at these sizes cost more than the 14.5G a clip that the published "
        "figure leaves for them: 441.7G with max pooling before phi and g, as in the authors' code, 466.4G after."),
    Row("NL-I3D + GCN", (Network("gcn_resnet50", 32, clips=2),), "46.1, 45.0, -, -", (f"{_V}1-gcn",), 62.2, 605,
        "62.2M are NL-I3D and a ResNet-50 with its feature pyramid, without the graph's layers (4.1M) and the head of the "
        "region proposals (0.6M); we count the network without the detector, whose boxes are computed once. No "
        "decomposition of 605G is known."),
    Row("TrajectoryNet", (Network("trajectory_resnet18", 32, classes=174),), "47.8, -, -, -", (f"{_V}1-trajectory",), 33.3,
        None,
        "33.3M fit a full 3D ResNet-18 or R(2+1)D-18, not the separable network of the authors' code, which ours follows."),
    Row("TSM, 8 frames", (Network("tsm_resnet50"),), "43.4, -, 59.1, -", (f"{_V}1-r50-tsm", f"{_V}2-r50-tsm"), 24.3, 33),
    Row("TSM, 16 frames", (_TSM16,), "44.8, -, 59.4, 60.4", (f"{_V}1-r50-tsm-16f", f"{_V}2-r50-tsm-16f"), 24.3, 65),
    Row("Two-stream TSM", (_TSM16, _TSM16_FLOW), "50.2, 47.0, 64.0, 64.3",
        (f"{_V}1-r50-tsm-16f", f"{_V}1-flow-16x5-r50-tsm", f"{_V}2-r50-tsm-16f", f"{_V}2-flow-16x5-r50-tsm"),
        48.6, None, _FUSED),
    Row("VSN-R50, RGB", (_R50,), "46.6, -, 60.6, -", (f"{_V}1-r50", f"{_V}2-r50"), 24.3, 33),
    Row("VSN-R50, flow", (_R50_FLOW,), "38.8, -, 53.8, -", (f"{_V}1-flow-8x5-r50", f"{_V}2-flow-8x5-r50"), 24.3, 33,
        _FLOW_COST),
    Row("Two-stream VSN-R50", (_R50, _R50_FLOW), "51.6, -, 65.3, -",
        (f"{_V}1-r50", f"{_V}1-flow-8x5-r50", f"{_V}2-r50", f"{_V}2-flow-8x5-r50"), 48.6, None, _FUSED),
    Row("VSN-R101, RGB", (_R101,), "47.8, -, 61.6, -", (f"{_V}1-r101", f"{_V}2-r101"), 42.9, 63),
    Row("VSN-R101, flow", (_R101_FLOW,), "41.4, -, 56.7, -", (f"{_V}1-flow-8x5-r101", f"{_V}2-flow-8x5-r101"), 42.9, 63,
        _FLOW_COST),
    Row("VSN-R{50+101}, RGB", (_R50, _R101), "49.2, 46.8, 63.2, 64.6",
        (f"{_V}1-r50", f"{_V}1-r101", f"{_V}2-r50", f"{_V}2-r101"), 67.2, 96, _FUSED),
    Row("Two-stream VSN-R101", (_R101, _R101_FLOW), "52.7, 49.9, 65.8, 66.1",
        (f"{_V}1-r101", f"{_V}1-flow-8x5-r101", f"{_V}2-r101", f"{_V}2-flow-8x5-r101"), 85.8, None, _FUSED),
)  # fmt: skip

_K = "paper-kinetics"
TABLE_3 = (
    Row("TSN", (Network("tsn_timm/inception_v3", size=299),), "71.5, 90.2", (f"{_K}-inception-v3-tsn",)),
    Row("Attention-Cluster", (Network("cluster_timm/inception_resnet_v2", size=299),), "75.0, 91.9",
        (f"{_K}-inception-resnet-cluster",), note="32 clusters; how many the network has on Kinetics is not known."),
    Row("NL-C2D", (Network("nl-c2d_resnet101", 32),), "75.1, 91.6", (f"{_K}-nl-c2d-r101",)),
    Row("CPNet", (Network("cpnet_resnet101"),), "75.3, 92.4", (f"{_K}-cpnet-r101",)),
    Row("I3D", (Network("i3d_inception", 64),), "72.1, 90.3", (f"{_K}-i3d-inception",)),
    Row("R(2+1)D", (Network("r2plus1d_34", 32, 112),), "74.3, 91.4", (f"{_K}-r2plus1d-34",)),
    Row("S3D-G", (Network("s3dg", 64),), "74.7, 93.4", (f"{_K}-s3dg",)),
    Row("CoST", (Network("cost_resnet101", 32),), "77.5, 93.2", (f"{_K}-cost-r101",)),
    Row("NL-I3D", (Network("nl-i3d_resnet101", 32),), "77.7, 93.3", (f"{_K}-nl-i3d-r101",)),
    Row("SlowFast+NL", (Network("nl-slowfast_resnet101", 64, settings=(("alpha", 4),)),), "79.8, 93.9",
        (f"{_K}-slowfast-nl-r101",)),
    Row("VSN-R50", (_R50,), "73.5, 91.3", (f"{_K}-r50",)),
    Row("VSN-R101", (Network("vsn_resnet101"),), "75.4, 92.2", (f"{_K}-r101",)),
    Row("Two stream VSN-R101", (Network("vsn_resnet101"), Network("vsn_resnet101", flow_fields=5)), "77.6, 93.7",
        (f"{_K}-r101", f"{_K}-flow-8x5-r101"), note=_FUSED),
)  # fmt: skip

_M, _MOMENTS = "paper-moments", 339
TABLE_4 = (
    Row("TSN", (_bn("tsn", _MOMENTS),), "24.11, -", (f"{_M}-bn-inception-tsn",)),
    Row("Two-stream TSN", (_bn("tsn", _MOMENTS), _bn("tsn", _MOMENTS, 5)), "25.32, 50.10",
        (f"{_M}-bn-inception-tsn", f"{_M}-flow-8x5-bn-inception-tsn"), note=_FUSED),
    Row("TRN", (_bn("mtrn", _MOMENTS),), "25.97, -", (f"{_M}-bn-inception-mtrn",)),
    Row("Two-stream TRN", (_bn("mtrn", _MOMENTS), _bn("mtrn", _MOMENTS, 5)), "28.27, 53.87",
        (f"{_M}-bn-inception-mtrn", f"{_M}-flow-8x5-bn-inception-mtrn"), note=_FUSED),
    Row("ResNet50-ImageNet", (Network("tsn_resnet50", 1, classes=_MOMENTS),), "27.16, 51.68", (f"{_M}-r50-image",)),
    Row("Two-stream I3D", (Network("i3d_inception", 64, classes=_MOMENTS),
                           Network("i3d_inception", 64, classes=_MOMENTS, flow_fields=1)), "29.51, 56.06",
        (f"{_M}-i3d-inception", f"{_M}-flow-64x1-i3d-inception"), note=_FUSED),
    Row("CoST, 8 frames, ResNet-50", (Network("cost_resnet50", classes=_MOMENTS),), "30.10, 57.20", (f"{_M}-cost-r50",)),
    Row("CoST, 8 frames, ResNet-101", (Network("cost_resnet101", classes=_MOMENTS),), "31.50, 57.90", (f"{_M}-cost-r101",)),
    Row("CoST, 32 frames, ResNet-101", (Network("cost_resnet101", 32, classes=_MOMENTS),), "32.40, 60.00",
        (f"{_M}-cost-r101-32f",)),
    Row("VSN-R50, 8 frames", (Network("vsn_resnet50", classes=_MOMENTS),), "31.74, 58.66", (f"{_M}-r50",)),
    Row("VSN-R101, 8 frames", (Network("vsn_resnet101", classes=_MOMENTS),), "32.65, 61.47", (f"{_M}-r101",)),
)  # fmt: skip


def _flow_row(kind: str, backbone: str, fields: int) -> Row:
    depth, end = {"ResNet-50": "r50", "ResNet-101": "r101"}[backbone], "-tsn" if kind == "tsn" else ""
    kinetics, something = PAPER_FLOW[kind, backbone, fields]
    label = backbone if kind == "tsn" else f"VSN-{depth.upper()}"
    network = Network(f"{kind}_{backbone.lower().replace('-', '')}", flow_fields=fields)
    recipes = tuple(f"paper-{data}-flow-8x{fields}-{depth}{end}" for data in ("kinetics", "something-v1"))
    return Row(f"{label}, 8x{fields}", (network,), f"{kinetics}, {something}", recipes)


TABLE_5 = tuple(_flow_row(*key) for key in PAPER_FLOW)

_LABELS_6 = ("I3D", "TSN-R50", "TSN-R101", "ECO 16F", "TSM 8F", "VSN-R50", "VSN-R101")
_FRAMES_6 = {"i3d-fine_resnet50": 32, "eco": 16}
TABLE_6 = tuple(
    Row(
        label,
        (Network(name, _FRAMES_6.get(name, 8), classes=174, clips=2 if name.startswith("i3d") else 1),),
        f"{top1}",
    )
    for label, (name, (_, _, top1)) in zip(_LABELS_6, PAPER_TABLE_6.items(), strict=True)
)


def _ablation(label: str, network: Network, paper: tuple[float, float], *recipes: str, note: str = "") -> Row:
    return Row(label, (network,), f"{paper[0]}, {paper[1]}", recipes, note=note)


def _vsn(backbone: str = "resnet50", **settings: Any) -> Network:
    return Network(f"vsn_{backbone}", settings=tuple(settings.items()))


TABLE_7 = tuple(
    _ablation(f"{backbone}, {block}", network, PAPER_BLOCKS[backbone][block], *recipes)
    for backbone, depth in (("ResNet-50", "r50"), ("ResNet-101", "r101"))
    for block, network, recipes in (
        ("baseline", Network(f"tsn_resnet{depth[1:]}"), (f"{_K}-{depth}-tsn", f"{_V}1-{depth}-tsn")),
        ("headtail", _vsn(f"resnet{depth[1:]}", block="headtail"),
         (f"ablation-kinetics-headtail-{depth}", f"ablation-headtail-{depth}")),
        ("compact", _vsn(f"resnet{depth[1:]}"), (f"{_K}-{depth}", f"{_V}1-{depth}")),
    )
)  # fmt: skip

TABLE_8 = (
    _ablation("0 blocks", Network("tsn_resnet50"), PAPER_NUM_BLOCKS[0], f"{_K}-r50-tsn", f"{_V}1-r50-tsn"),
    *(
        _ablation(
            f"{count} block{'s' if count > 1 else ''}", _vsn(places=STAGES[-count:], shift=False), PAPER_NUM_BLOCKS[count],
            f"ablation-kinetics-blocks-{count}", f"ablation-blocks-{count}",
        )
        for count in (1, 2, 3)
    ),
    _ablation("4 blocks", _vsn(), PAPER_NUM_BLOCKS[4], f"{_K}-r50", f"{_V}1-r50",
              note="The paper's figure is that of Table 9's combination, with shift. Without shift: "
              "`ablation-shuffle-only`, `ablation-kinetics-shuffle-only`."),
)  # fmt: skip

TABLE_9 = (
    _ablation("baseline", Network("tsn_resnet50"), PAPER_MODELS["baseline"], f"{_K}-r50-tsn", f"{_V}1-r50-tsn"),
    _ablation("+ temporal shift", Network("tsm_resnet50"), PAPER_MODELS["+ temporal shift"],
              f"{_K}-r50-tsm", "ablation-shift-only"),
    _ablation("+ video shuffle", _vsn(shift=False), PAPER_MODELS["+ video shuffle"],
              "ablation-kinetics-shuffle-only", "ablation-shuffle-only"),
    _ablation("+ combination", _vsn(), PAPER_MODELS["+ combination"], f"{_K}-r50", f"{_V}1-r50"),
)  # fmt: skip


# --- counts ---


@dataclass
class Architecture:
    """A row of Table 1: the blocks of a stage and the size of its output."""

    layer: str
    blocks: str
    output: str


def architecture(name: str, num_frames: int = 8) -> list[Architecture]:
    """List the layers of a VSN as Table 1 does, as built: standard and compact blocks, output sizes channels x T x H x W."""
    with torch.device("meta"):
        model = build_model(ModelConfig(name=name, num_classes=400, num_frames=num_frames)).eval()
        clip = torch.zeros(1, num_frames, 3, 224, 224)
    backbone = model.backbone
    rows = {"conv1": "7x7, stride 2", "maxpool": "3x3 max, stride 2"}
    for number, blocks in enumerate(residual_blocks(backbone).values(), 1):
        shuffled = [isinstance(backbone.get_submodule(block.spatial), ShuffleConv2d) for block in blocks]
        shifted = [isinstance(backbone.get_submodule(block.head), ShiftConv2d) for block in blocks]
        assert shuffled == [False] * (len(blocks) - 1) + [True]
        assert shifted == [not one for one in shuffled]
        rows[f"layer{number}"] = f"standard (shift) x{len(blocks) - 1}, compact x1"
    sizes: dict[str, str] = {}

    def note(layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            sizes[layer] = f"{output.shape[1]}x{num_frames}x{output.shape[2]}x{output.shape[3]}"

        return hook

    for layer in rows:
        backbone.get_submodule(layer).register_forward_hook(note(layer))
    model(clip)
    names = {"conv1": "conv1", "maxpool": "pool1"} | {f"layer{i}": stage for i, stage in enumerate(STAGES, 1)}
    listed = [Architecture(names[layer], blocks, sizes[layer]) for layer, blocks in rows.items()]
    return [*listed, Architecture("average pool, classifier", "as in TSN", f"{model.head.in_features}x1x1x1")]


ROWS: dict[str, tuple[Row, ...]] = {
    "2": TABLE_2, "3": TABLE_3, "4": TABLE_4, "5": TABLE_5, "6": TABLE_6, "7": TABLE_7, "8": TABLE_8, "9": TABLE_9,
}  # fmt: skip
"""Table 1 is `architecture`."""


def networks() -> list[Network]:
    """Return every network of the tables once."""
    return list({network.key: network for rows in ROWS.values() for row in rows for network in row.networks}.values())


def count(network: Network) -> dict[str, int] | None:
    """Return parameters and the multiply-adds of one clip; None if this version has no such model."""
    try:
        config = network.config
        with torch.device("meta"):
            model = build_model(config)
    except ConfigError:
        return None
    return {
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(config, size=network.size),
    }


if __name__ == "__main__":
    listed = {name: [vars(one) for one in architecture(name)] for name in ("vsn_resnet50", "vsn_resnet101")}
    values = {"networks": {network.key: count(network) for network in networks()}, "architecture": listed}
    COSTS.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
