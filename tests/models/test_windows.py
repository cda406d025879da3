"""The Non-local code's fully convolutional test: every window of the last maps is scored, and probabilities are averaged."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.helpers.peers import make, make_clip
from vsn.config import ConfigError, DataConfig, EvalConfig, ModelConfig, Recipe
from vsn.models import VideoClassifier


def by_hand(model: VideoClassifier, maps: Tensor, side: int) -> Tensor:
    """Mean probabilities of one clip, from maps ``(T, C, h, w)``, window by window."""
    probabilities = []
    for y in range(maps.shape[2] - side + 1):
        for x in range(maps.shape[3] - side + 1):
            of_frames = [model.head(frame[:, y : y + side, x : x + side].mean(dim=(1, 2))) for frame in maps]
            probabilities.append(torch.stack(of_frames).mean(dim=0).softmax(dim=0))
    return torch.stack(probabilities).mean(dim=0)


@pytest.mark.parametrize("name", ["tsn_resnet14_tiny", "vsn_resnet14_tiny"])
def test_a_2d_network_by_hand(name: str) -> None:
    model, clip = make(name, num_frames=4), make_clip(4, size=256)[..., :224, :]
    maps: list[Tensor] = []
    handle = model.backbone.avgpool.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    mean = model(clip)
    handle.remove()
    of_clips = maps[0].unflatten(0, (2, 4))
    assert of_clips.shape[-2:] == (7, 8)
    scores = model.window_scores(clip, share=0.875)
    # Three quarters and an eighth of 7 places: windows of 6x6, in two rows and three columns.
    for score, of_clip in zip(scores, of_clips, strict=True):
        torch.testing.assert_close(score.exp(), by_hand(model, of_clip, 6))
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(2))
    # Windows as large as square frames are the frames; nothing stays behind in the network.
    square = clip[..., :224]
    torch.testing.assert_close(model.window_scores(square, share=1.0), model(square).log_softmax(dim=1))
    torch.testing.assert_close(model(clip), mean)


def test_a_3d_network_by_hand() -> None:
    model, clip = make("nl-i3d_resnet26_thin"), make_clip(size=256)[..., :160, :]
    maps = model.backbone(model.normalized(clip).transpose(1, 2)).mean(dim=2)
    assert maps.shape[-2:] == (5, 8)
    for score, of_clip in zip(model.window_scores(clip, share=0.8), maps, strict=True):
        torch.testing.assert_close(score.exp(), by_hand(model, of_clip[None], 4))
    square = clip[..., :160]
    torch.testing.assert_close(model.window_scores(square, share=1.0), model(square).log_softmax(dim=1))


def test_networks_and_tasks_without_windows() -> None:
    with pytest.raises(ConfigError, match=r"fcn-windows.*pooling layer"):
        make("tsn_densenet121", num_frames=2).window_scores(make_clip(2, size=64), share=0.5)
    with pytest.raises(ConfigError, match=r"fcn-windows.*boxes"):
        make("gcn_resnet26_thin").window_scores(make_clip(channels=13), share=0.5)
    recipe = Recipe(model=ModelConfig(), eval=EvalConfig(protocol="fcn-windows"))
    with pytest.raises(ConfigError, match=r"fcn-windows.*multilabel"):
        replace(recipe, data=DataConfig(task="multilabel"))
