"""Find boxes of objects of any class: the region proposals of torchvision's Faster R-CNN."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from vsn.config import ConfigError
from vsn.data.boxes.files import DETECTOR, RANDOM, Boxes, detector_id
from vsn.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from vsn.models.weights_file import read_pickled, read_weights

_MULTIPLE = 32
"""Frames are padded to a multiple of the coarsest map's stride."""
_FRAMES_AT_ONCE = 8


class Detector:
    """Find the boxes that are most likely objects, of any class, in frames.

    Args:
        weights: a file of weights of torchvision's `fasterrcnn_resnet50_fpn`, or "none" for random ones.
        num_boxes: boxes of a frame at most.
        device: torch device.

    Raises:
        ConfigError: no such file, or weights of another network.
    """

    def __init__(self, weights: str, *, num_boxes: int, device: str = "cpu") -> None:
        detector_id(weights)
        self.device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: FasterRCNN = fasterrcnn_resnet50_fpn(
                weights=None, weights_backbone=None, rpn_post_nms_top_n_test=num_boxes
            )
        if weights != RANDOM:
            _load(network, weights)
        # Classes and refined boxes are not needed.
        self._backbone, self._proposals = network.backbone.eval().to(device), network.rpn.eval().to(device)
        self._mean, self._std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> list[Boxes]:
        """Return the boxes of each frame, uint8 `(n, H, W, 3)` RGB, the most likely first."""
        boxes: list[Boxes] = []
        height, width = frames.shape[1:3]
        size = np.array([width, height, width, height])
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            images = torch.from_numpy(frames[start : start + _FRAMES_AT_ONCE]).to(self.device)
            images = (images.permute(0, 3, 1, 2) / 255 - self._mean) / self._std
            padded = nn.functional.pad(images, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE))
            # Boxes are cut at the sizes that the list states.
            found, _ = self._proposals(ImageList(padded, [(height, width)] * len(images)), self._backbone(padded))
            boxes += [_inside(of_frame.cpu().numpy() / size) for of_frame in found]
        return boxes


def _inside(boxes: np.ndarray) -> Boxes:
    # What was cut at the border may have no area.
    boxes = boxes.astype(np.float64).clip(0, 1)
    return boxes[(boxes[:, 2] - boxes[:, 0] > 1e-4) & (boxes[:, 3] - boxes[:, 1] > 1e-4)]


@lru_cache(maxsize=1)
def detector_of(weights: str, *, num_boxes: int, device: str = "cpu") -> Detector:
    """Return a `Detector`, built once for all videos of a process."""
    return Detector(weights, num_boxes=num_boxes, device=device)


def _load(network: FasterRCNN, weights: str) -> None:
    path = Path(weights)
    try:
        state = read_weights(path) if path.suffix == ".safetensors" else read_pickled(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"data.detector: {path} cannot be read as weights: {error}") from error
    own = network.state_dict()
    # Counters of batches are not in files of frozen batch normalizations.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    differing = [name for name in state if name in own and state[name].shape != own[name].shape]
    # The classifier depends on the classes of its data, and is not used.
    wrong = [name for name in (*missing, *unknown, *differing) if not name.startswith("roi_heads.box_predictor.")]
    if wrong:
        raise ConfigError(
            f"data.detector: {path} does not hold the weights of torchvision's {DETECTOR}: {len(wrong)} names or shapes "
            f"differ, for example {wrong[0]!r}. Other detectors, such as its second version or Mask R-CNN, cannot be used."
        )
    network.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("roi_heads.box_predictor.")}, strict=False
    )
    for module in network.modules():
        # As torchvision sets it for its published weights.
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
