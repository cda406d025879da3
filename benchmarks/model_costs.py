"""Print the table of docs/models.md as Markdown: parameters and multiply-adds of every kind of model.

python benchmarks/model_costs.py
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vsn.config import ModelConfig
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds, count_parameters

NUM_CLASSES = 400


@dataclass(frozen=True)
class Row:
    """A model at the input size of its paper.

    Attributes:
        name: as `create_model` takes it.
        source: publication.
        num_frames: T.
        size: height and width, pixels.
        published: parameters and multiply-adds as published, with where.
    """

    name: str
    source: str
    num_frames: int
    size: int
    published: str = "none"


ROWS = (
    Row("tsn_resnet50", "Wang et al. 2016", 8, 224, "none for this backbone"),
    Row("tsn_bn_inception", "Wang et al. 2016", 8, 224, "10.7M, 16G (VSN paper, Table 2)"),
    Row("tsn_timm/inception_v3", "Wang et al. 2016", 8, 299, "none"),
    Row("tsn_timm/inception_resnet_v2", "backbone of Long et al. 2018", 8, 299, "none"),
    Row("tsm_resnet50", "Lin et al. 2018", 8, 224, "24.3M, 33G (VSN paper, Table 2)"),
    Row("vsn_resnet50", "Ma et al.", 8, 224, "24.3M, 33G (VSN paper)"),
    Row("vsn_resnet101", "Ma et al.", 8, 224, "63G (VSN paper)"),
    Row("trn_resnet50", "Zhou et al. 2018", 8, 224, "none for this backbone"),
    Row("mtrn_resnet50", "Zhou et al. 2018", 8, 224, "none for this backbone"),
    Row("mtrn_bn_inception", "Zhou et al. 2018", 8, 224, "18.3M, 16G (VSN paper, Table 2); see below"),
    Row("cluster_resnet50", "Long et al. 2018, 32 units", 8, 224, "none for this backbone"),
    Row("eco_lite", "Zolfaghari et al. 2018", 16, 224),
    Row("eco", "Zolfaghari et al. 2018", 16, 224, "47.5M, 64G (VSN paper, Table 2)"),
    Row("s3d", "Xie et al. 2018", 64, 224, "8.77M, 66.4G; see below"),
    Row("s3dg", "Xie et al. 2018", 64, 224, "11.56M, 71.4G; see below"),
    Row("r2plus1d_18", "Tran et al. 2018, torchvision's form", 16, 112, "31.5M, 40.5G (torchvision)"),
    Row("r2plus1d_34", "Tran et al. 2018", 32, 112, "152G (SlowFast, Table 2)"),
    Row("c2d_resnet50", "Wang et al. 2018", 32, 224),
    Row("i3d_resnet50", "Wang et al. 2018", 32, 224, "28.0M (VSN paper, Table 2)"),
    Row("i3d-fine_resnet50", "Wang and Gupta 2018", 32, 224, "28.0M, 153G a clip (VSN paper, Table 2)"),
    Row(
        "nl-i3d-fine_resnet50",
        "Wang and Gupta 2018",
        32,
        224,
        "35.3M, 168G a clip (VSN paper, Table 2); see below",
    ),
    Row("gcn_resnet50", "Wang and Gupta 2018", 32, 224, "62.2M, 303G a clip (VSN paper, Table 2); see below"),
    Row("cost-a_resnet50", "Li et al. 2019, CoST(a)", 8, 224),
    Row("cost_resnet50", "Li et al. 2019, CoST(b)", 8, 224),
    Row("cost_resnet101", "Li et al. 2019, CoST(b)", 8, 224),
    Row("cost_resnet101", "Li et al. 2019, CoST(b)", 32, 224),
    Row("cpnet_resnet101", "Liu et al. 2019", 8, 224),
    Row("cpnet_resnet34", "Liu et al. 2019", 12, 224),
    Row("i3d_inception", "Carreira and Zisserman 2017", 64, 224, "12M, 108G"),
    Row("trajectory_resnet18", "Zhao et al. 2018", 32, 224, "33.3M (VSN paper, Table 2); see below"),
    Row("slowfast_resnet50", "Feichtenhofer et al. 2019", 32, 256, "36.1G (its Table 2)"),
    Row("eco_thin", "ours, a quarter of the widths", 8, 64),
    Row("i3d_inception_thin", "ours, a quarter of the widths", 8, 64),
    Row("r2plus1d_34_thin", "ours, a quarter of the widths", 8, 64),
    Row("gcn_resnet26_thin", "ours", 8, 64),
    Row("trajectory_resnet18_thin", "ours, a quarter of the widths", 8, 64),
    Row("vsn_resnet26_thin", "ours", 8, 64),
    Row("mtrn_resnet26_thin", "ours", 8, 64),
)
HEAD = "| model | source | clip | parameters | multiply-adds | published |\n|---|---|---|---|---|---|"


def line(row: Row) -> str:
    """Count a model and return its row of the table."""
    config = ModelConfig(name=row.name, num_classes=NUM_CLASSES, num_frames=row.num_frames)
    with torch.device("meta"):
        parameters = count_parameters(build_model(config))
    macs = count_multiply_adds(config, size=row.size)
    cost = f"{macs / 1e9:.1f}G" if macs >= 1e9 else f"{macs / 1e6:.0f}M"
    return (
        f"| `{row.name}` | {row.source} | {row.num_frames}x{row.size}x{row.size} | {parameters / 1e6:.2f}M | {cost} | "
        f"{row.published} |"
    )


if __name__ == "__main__":
    print("\n".join([HEAD, *map(line, ROWS)]))
