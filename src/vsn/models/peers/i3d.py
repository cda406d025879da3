"""Build C2D and I3D, with and without non-local blocks: an image ResNet inflated along time.

Source: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018, after Carreira and Zisserman's I3D
(CVPR 2017). C2D is its Table 1: time is only pooled. I3D sees 5 frames in conv1 and 3 in the first 1x1
convolution of every other residual block (its I3D 3x1x1; the paper does not list the blocks, our reading is: all of
res2, the first, third, ... of res3 and res4, the second of res5). Non-local networks have five non-local blocks, two in
res3 and three in res4 (`vsn.models.peers.non_local`).

Table 1 halves time in conv1, pool1 and pool2: 32 frames become 4 from res3 on. The I3D in Table 2 of the VSN
paper (64 frames: two clips of 32; 28.0M parameters, 306G multiply-adds; with non-local blocks 35.3M and 335G) is another
one: the figures are Wang and Gupta's ("Videos as Space-Time Region Graphs", ECCV 2018), whose I3D halves time only in pool2
and has no stride in res5. That is ``i3d-fine``.

Parameters and multiply-adds of 400 classes and one clip of 32 frames of 224x224 pixels, counted by
`vsn.models.measure.count_multiply_adds` (convolutions, matrix products, linear layers):

| model | parameters | multiply-adds | published | what differs |
|---|---|---|---|---|
| c2d_resnet50 | 24.33M | 20.4G | | not checked against a publication |
| i3d_resnet50 | 28.04M | 33.1G | 28.0M | |
| i3d-fine_resnet50 | 28.04M | 152.5G, two clips 304.9G | 28.0M, 306G | 0.4%; the published is 153 twice |
| nl-i3d_resnet50 | 35.40M | 41.3G | 35.3M | |
| nl-i3d-fine_resnet50 | 35.40M | 220.9G, two clips 441.7G | 35.3M, 335G | see below |
| c2d_resnet101, i3d_resnet101, i3d-fine_resnet101 | 43.32M, 51.75M, 51.75M | 35.3G, 51.7G, 226.7G | | not checked |

The VSN paper's table is for Something-Something's 174 classes; 28.0M is right for the 400 of Kinetics (with 174 it is
27.6M). Other readings do not reach 306G: Table 1's strides cost 66.3G for two clips (86.5G at 256x256), i3d-fine with a
stride of 2 in res5 227.3G, at 256x256 296.8G.

Five non-local blocks on 16 frames of 28x28 and 14x14 positions cost more than 335G: their 1x1 convolutions take 20.5G per
clip (32.9G with ``non_local_pool = "after"``) and the pairwise products 47.8G. The published difference, 14.5G per clip, is
about that of two of the four convolutions, theta and the output (16.4G, hence 337.9G for two clips, 0.9% above 335G). We
count everything.
"""

from __future__ import annotations

from vsn.config import ModelConfig
from vsn.models.classifier import VolumeClassifier
from vsn.models.peers.non_local import DEFAULT, PLACES, Attention, insert_nonlocal
from vsn.models.peers.resnet3d import SHAPES, ResNet3d, TimePlan

# Lengths in time of the first convolutions of res2 to res5, block by block.
_INFLATED = ((3,), (3, 1), (3, 1), (1, 3, 1))

PLANS = {
    # C2D pools along time and convolves single frames; I3D adds kernels along time; i3d-fine keeps T until pool2.
    "c2d": TimePlan(stem_stride=2, pool1=(3, 2), pool2=(3, 2)),
    "i3d": TimePlan(stem_kernel=5, stem_stride=2, pool1=(3, 2), pool2=(3, 2), kernels=_INFLATED),
    "i3d-fine": TimePlan(stem_kernel=5, pool2=(3, 2), kernels=_INFLATED, res5_stride=1),
}
"""Kernels and strides along time, by kind."""


def i3d_body(kind: str, name: str, *, attention: Attention = DEFAULT) -> ResNet3d:
    """Build the convolutions of ``{kind}_{name}``: a volume ``(B, C, T, H, W)`` to features ``(B, D, T', H', W')``.

    D is 2048, for the name "resnet26_thin" 512.
    """
    body = ResNet3d(SHAPES[name], PLANS[kind.removeprefix("nl-")])
    return insert_nonlocal(body, PLACES[name], attention=attention) if kind.startswith("nl-") else body


def build(config: ModelConfig) -> VolumeClassifier:
    """Build C2D, I3D or I3D-fine, with non-local blocks if the name begins with ``nl-``."""
    body = i3d_body(config.kind, config.backbone, attention=Attention.of(config))
    return VolumeClassifier(body, config, feature_dim=body.feature_dim)
