"""Build models: `build_model` from a `ModelConfig`, `create_model` from a name."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Sequence

from vsn.config import MODELS, STAGES, Block, ConfigError, Modality, ModelConfig, NonLocalPool, Pairwise
from vsn.models.backbones import list_backbones
from vsn.models.classifier import VideoClassifier
from vsn.models.weights import initialize

__all__ = ["VideoClassifier", "build_model", "create_model", "initialize", "list_models"]


def build_model(config: ModelConfig) -> VideoClassifier:
    """Build a model with random weights; `create_model` or a checkpoint fills them.

    Raises:
        ConfigError: no such backbone, or one whose convolutions cannot take the temporal operations.
    """
    if config.num_classes < 1:
        raise ConfigError("model.num_classes is 0; a model needs at least one class.")
    # Imported when first built, so that one model does not pay for the imports of all.
    return importlib.import_module(f"vsn.models.{MODELS[config.kind].module}").build(config)


def create_model(
    name: str,
    *,
    num_classes: int,
    num_frames: int = 8,
    weights: str = "none",
    dropout: float = 0.5,
    block: Block = "compact",
    places: Sequence[str] = STAGES,
    shift: bool = True,
    shift_places: Sequence[str] = STAGES,
    shift_div: int = 8,
    shift_every: int = 1,
    modality: Modality = "rgb",
    flow_length: int = ModelConfig.flow_length,
    pairwise: Pairwise = "embedded-gaussian",
    non_local_pool: NonLocalPool = "before",
    non_local_scale: bool = False,
    alpha: int = 8,
    clusters: int = 32,
    path_bound: float = ModelConfig.path_bound,
    num_boxes: int = ModelConfig.num_boxes,
) -> VideoClassifier:
    """Create a video model by name.

    Args:
        name: one of `list_models`, such as ``vsn_resnet50``; on a timm backbone ``vsn_timm/resnet26d``.
        num_classes: outputs of the classifier.
        num_frames: T, frames per clip; fixed, except for a TSN.
        weights: "none", a torchvision weight name such as "IMAGENET1K_V2", a file, or a run folder; loaded into all but
            the classifier.
        dropout: drop probability before the classifier.
        block: "compact" or "headtail" (VSN; paper, Table 7), or "pointwise", ours: around the 1x1 convolution.
        places: stages whose last block shuffles (VSN; paper, Table 8).
        shift: temporal shift in the other blocks (VSN; paper, Table 9).
        shift_places: stages whose blocks may shift (TSM and VSN).
        shift_div: 1/shift_div of the channels shift each way.
        shift_every: shift every n-th block only.
        modality: "rgb", "flow" or "rgbdiff". Pretrained weights for RGB fit all three.
        flow_length: L, flow fields or differences per segment.
        pairwise: "embedded-gaussian" or "dot-product" (non-local networks).
        clusters: N, attention units (Attention Clusters).
        non_local_pool: "before" or "after" the convolutions (non-local networks).
        non_local_scale: divide the products by the square root of their width (non-local networks).
        alpha: fast frames per slow frame (SlowFast).
        path_bound: largest motion between two frames of a clip, pixels (TrajectoryNet).
        num_boxes: boxes of each frame (NL-I3D + GCN).

    Returns:
        A model that maps a clip ``(B, T, C, H, W)``, uint8 or float in [0, 1], to logits ``(B, num_classes)``. C is 3 for
        RGB, 2L for flow (x1, y1, x2, y2, ...), 3 (L + 1) for differences: the frames, which the model subtracts; an extra
        input adds its planes (TrajectoryNet 4, see `vsn.data.paths`; GCN one for each box, see `vsn.data.boxes`).

    Raises:
        ConfigError: (a ValueError) an impossible setting, unknown backbone or unusable weights.

    Example:
        >>> import torch
        >>> model = create_model("vsn_resnet18", num_classes=5, num_frames=4)
        >>> model(torch.zeros(2, 4, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([2, 5])
    """
    config = ModelConfig(
        name=name, num_classes=num_classes, num_frames=num_frames, weights=weights, dropout=dropout, block=block,
        places=tuple(places), shift=shift, shift_places=tuple(shift_places), shift_div=shift_div, shift_every=shift_every,
        modality=modality, flow_length=flow_length, pairwise=pairwise, non_local_pool=non_local_pool,
        non_local_scale=non_local_scale, alpha=alpha, clusters=clusters,
        path_bound=path_bound, num_boxes=num_boxes,
    )  # fmt: skip
    model = build_model(config)
    if weights != "none":
        initialize(model, config)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """List the names that `create_model` takes, without those of timm: ``{tsn,tsm,vsn,trn,mtrn,cluster}_timm/<name>``.

    Args:
        pattern: only matching names are listed, with ``*`` and ``?`` as in a shell.

    Example:
        >>> list_models("vsn_resnet1??")
        ['vsn_resnet101', 'vsn_resnet152']
    """
    # By backbone, so that the models to compare are next to each other.
    frame_kinds = [kind for kind, entry in MODELS.items() if entry.backbones == "2d"]
    names = [f"{kind}_{backbone}" for backbone in list_backbones() for kind in frame_kinds]
    sized = {kind: entry.backbones for kind, entry in MODELS.items() if entry.backbones not in ("2d", ())}
    for backbone in dict.fromkeys(name for names_of_kind in sized.values() for name in names_of_kind):
        names += [f"{kind}_{backbone}" for kind, names_of_kind in sized.items() if backbone in names_of_kind]
    names += [kind for kind, entry in MODELS.items() if not entry.backbones]
    return fnmatch.filter(names, pattern)
