"""Say in a few words what a model is, for readers who do not know its name."""

from __future__ import annotations

from vsn.config.model import MODELS, ModelConfig

KINDS: dict[str, str] = {
    "tsn": "each frame by itself, scores averaged (TSN)",
    "tsm": "a 2D CNN that shifts channels to neighboring frames (TSM)",
    "vsn": "a 2D CNN that shuffles channels between frames (VSN)",
    "trn": "a 2D CNN with relations of frames before the classifier (TRN)",
    "mtrn": "a 2D CNN with relations of frames at several scales (multi-scale TRN)",
    "cluster": "a 2D CNN with attention over frames (Attention Clusters)",
    "c2d": "a ResNet that sees each frame by itself and pools over time (C2D)",
    "i3d": "a 3D ResNet, inflated from 2D (I3D)",
    "i3d-fine": "a 3D ResNet without pooling in time at its beginning (I3D)",
    "i3d_inception": "a 3D Inception, inflated from 2D (I3D)",
    "i3d_inception_thin": "a small 3D Inception (I3D)",
    "nl-c2d": "C2D with non-local blocks",
    "nl-i3d": "I3D with non-local blocks",
    "nl-i3d-fine": "I3D without early pooling in time, with non-local blocks",
    "cost": "2D convolutions on three views of the volume, weighted by content (CoST)",
    "cost-a": "2D convolutions on three views of the volume (CoST)",
    "cpnet": "a 2D CNN that proposes corresponding positions in other frames (CPNet)",
    "slowfast": "a 3D ResNet with a slow and a fast pathway (SlowFast)",
    "nl-slowfast": "SlowFast with non-local blocks",
    "eco": "2D features of frames, then a 3D network beside a 2D one (ECO)",
    "eco_thin": "2D features of frames, then a small 3D network beside a 2D one (ECO)",
    "eco_lite": "2D features of frames, then a 3D network (ECO Lite)",
    "eco_lite_thin": "2D features of frames, then a small 3D network (ECO Lite)",
    "s3d": "an Inception with convolutions separate in space and time (S3D)",
    "s3dg": "S3D with gates on its features (S3D-G)",
    "r2plus1d_18": "an 18-layer ResNet with convolutions separate in space and time (R(2+1)D)",
    "r2plus1d_34": "a 34-layer ResNet with convolutions separate in space and time (R(2+1)D)",
    "r2plus1d_34_thin": "a small 34-layer ResNet with convolutions separate in space and time (R(2+1)D)",
    "separable": "a ResNet with convolutions separate in space and time",
    "trajectory": "convolutions in time along the paths of points (TrajectoryNet)",
    "gcn": "NL-I3D beside graphs of objects, whose boxes come with the frames (NL-I3D + GCN)",
}
_MODALITIES = {"rgb": "", "flow": ", on optical flow", "rgbdiff": ", on differences of frames"}


def describe_model(config: ModelConfig) -> str:
    """Return what a model is, in a few words, with its backbone.

    Example:
        >>> describe_model(ModelConfig(name="tsn_resnet50"))
        'each frame by itself, scores averaged (TSN), on resnet50'
    """
    backbone = f", on {config.backbone}" if MODELS[config.kind].backbones else ""
    return f"{KINDS.get(config.kind, config.kind)}{backbone}{_MODALITIES[config.modality]}"
