"""Hold the means and standard deviations that pretrained weights expect of pixels in [0, 1]."""

from __future__ import annotations

# Of RGB; torchvision's weights expect these.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# TSN: bytes of flow are centered at 128, and divided by the mean of ImageNet's three standard deviations.
FLOW_MEAN = (0.5,)
FLOW_STD = (0.226,)
