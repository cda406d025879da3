"""NL-I3D + GCN: boxes become nodes, graphs weight them, and a new network scores as its I3D."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import VideoClassifier, create_model
from vsn.models.gradcam import grad_cam
from vsn.models.peers.gcn import RegionGraph, boxes_of_planes, overlaps, region_features, time_graphs

THIN = "gcn_resnet26_thin"


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    """Boxes of at least a tenth of the frame, as shares ``(*shape, 4)``."""
    corners = torch.rand(*shape, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low, high = corners.amin(dim=-2) * 0.9, corners.amax(dim=-2)
    return torch.cat([low, torch.maximum(high, low + 0.1)], dim=-1)


def draw(boxes: Tensor, height: int, width: int) -> Tensor:
    """The share of each pixel in each box ``(..., 4)`` of shares: ``(..., H, W)``."""

    def covered(low: Tensor, high: Tensor, length: int) -> Tensor:
        pixel = torch.arange(length)
        return (
            torch.minimum(high[..., None] * length, pixel + 1) - torch.maximum(low[..., None] * length, pixel)
        ).clamp(0)

    left, top, right, bottom = boxes.unbind(-1)
    return covered(top, bottom, height)[..., None] * covered(left, right, width)[..., None, :]


def clip_with(boxes: Tensor, *, size: int = 32, seed: int = 1) -> Tensor:
    """Random frames with boxes ``(B, T, K, 4)``: uint8 ``(B, T, 3 + K, size, size)``."""
    colors = torch.randint(0, 256, (*boxes.shape[:2], 3, size, size), generator=torch.Generator().manual_seed(seed))
    return torch.cat([colors, (255 * draw(boxes, size, size)).round()], dim=2).byte()


def trained(name: str = THIN, **settings: object) -> VideoClassifier:
    """A network whose graphs are not at their start, where they give zero."""
    model = make(name, **settings)  # type: ignore[arg-type]
    for layers in (model.backbone.graph.similarity, model.backbone.graph.time):
        torch.nn.init.ones_(layers[-1].norm.weight)
    return model


def test_planes_are_read_as_the_boxes_that_were_drawn() -> None:
    boxes = random_boxes(5, 3)
    found, shown = boxes_of_planes(draw(boxes, 24, 40))
    assert shown.all()
    assert ((found - boxes).abs() * torch.tensor([40, 24, 40, 24])).max() < 0.1  # pixels
    whole_pixels = torch.tensor([0.1, 0.25, 0.55, 0.5])
    torch.testing.assert_close(boxes_of_planes(draw(whole_pixels, 24, 40))[0], whole_pixels)


def test_boxes_are_kept_when_planes_are_resized() -> None:
    boxes = random_boxes(12)
    planes = (255 * draw(boxes, 80, 60)).round().byte()[:, None]
    resized = torchvision.transforms.v2.functional.resize(planes, [48, 52], antialias=True)[:, 0] / 255
    found, _ = boxes_of_planes(resized)
    # In pixels of the smaller frame.
    assert ((found - boxes).abs() * torch.tensor([52, 48, 52, 48])).max() < 0.15


def test_a_plane_without_a_box_shows_none() -> None:
    planes = torch.zeros(3, 8, 8)
    planes[1, 2:5, 3] = 0.3  # a strip that a crop left
    planes[2, 2:5, 3] = 1.0
    boxes, shown = boxes_of_planes(planes)
    assert shown.tolist() == [False, False, True]
    assert boxes.isfinite().all()


def test_regions_are_those_of_torchvision() -> None:
    maps = torch.randn(2, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(2, 4, seed=2)
    pixels = boxes * torch.tensor([7.0, 9.0, 7.0, 9.0], dtype=torch.float64)
    aligned = torchvision.ops.roi_align(maps, list(pixels), 7, sampling_ratio=2, aligned=True)
    expected = aligned.amax(dim=(2, 3)).view(2, 4, 3)
    torch.testing.assert_close(region_features(maps, boxes), expected)


def test_the_whole_frame_is_the_maximum_of_its_map() -> None:
    # Of 14x14 places, the points of 7x7 bins are the places themselves.
    maps = torch.nn.functional.interpolate(torch.rand(1, 2, 7, 7, dtype=torch.float64), scale_factor=2)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).expand(1, 1, 4)
    torch.testing.assert_close(region_features(maps, whole)[:, 0], maps.amax(dim=(2, 3)))


def test_overlaps_are_those_of_torchvision() -> None:
    boxes = random_boxes(2, 6, seed=3)
    for ours, of_clip in zip(overlaps(boxes), boxes, strict=True):
        torch.testing.assert_close(ours, torchvision.ops.box_iou(of_clip, of_clip))


def test_graphs_through_time_connect_neighboring_steps() -> None:
    boxes, shown = random_boxes(1, 3, 4, seed=4), torch.ones(1, 3, 4, dtype=torch.bool)
    shown[0, 1, 2] = False
    forward, backward = (graph[0] for graph in time_graphs(boxes, shown))
    for i in range(12):
        row = torch.zeros(12, dtype=torch.float64)
        back = torch.zeros(12, dtype=torch.float64)
        for j in range(12):
            if shown.flatten()[i] and shown.flatten()[j]:
                iou = torchvision.ops.box_iou(boxes[0].view(12, 1, 4)[i], boxes[0].view(12, 1, 4)[j])[0, 0]
                row[j] = iou if j // 4 == i // 4 + 1 else 0
                back[j] = iou if j // 4 == i // 4 - 1 else 0
        torch.testing.assert_close(forward[i], row / row.sum() if row.sum() else row)
        torch.testing.assert_close(backward[i], back / back.sum() if back.sum() else back)


def test_similarities_sum_to_one() -> None:
    torch.manual_seed(0)
    graph = RegionGraph(8).double()
    torch.nn.init.normal_(graph.theta.weight)
    nodes, shown = torch.randn(2, 6, 8, dtype=torch.float64), torch.ones(2, 2, 3, dtype=torch.bool)
    shown[0, 1, 1] = shown[1] = False
    weights = graph.similarity_graph(nodes, shown)
    products = (nodes @ graph.theta.weight.T) @ (nodes @ graph.phi.weight.T).transpose(1, 2)
    seen = [0, 1, 2, 3, 5]
    torch.testing.assert_close(weights[0][seen][:, seen], products[0][seen][:, seen].softmax(dim=1))
    assert not weights[0, 4].any()
    assert not weights[0, :, 4].any()
    assert not weights[1].any()


def test_a_new_network_scores_as_its_i3d() -> None:
    model, i3d = make(THIN), make("nl-i3d-fine_resnet26_thin")
    i3d.backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    clip = clip_with(random_boxes(2, 8, 10))
    volume = i3d.normalized(clip[:, :, :3]).transpose(1, 2)
    reduced = model.backbone.reduce(i3d.backbone(volume)).mean(dim=(2, 3, 4))
    width = reduced.shape[1]
    expected = reduced @ model.head.weight[:, :width].T + model.head.bias
    torch.testing.assert_close(model(clip), expected)


def test_every_weight_of_the_graphs_learns_from_the_second_step_on() -> None:
    model = make(THIN).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clip = clip_with(random_boxes(2, 8, 10))
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(clip), torch.tensor([0, 1])).backward()
        optimizer.step()
    graph = dict(model.backbone.graph.named_parameters())
    assert not [name for name, weight in graph.items() if not weight.grad.any()]


def test_boxes_of_a_frame_have_no_order_and_missing_ones_no_effect() -> None:
    model = trained()
    boxes = random_boxes(1, 8, 10)
    clip = clip_with(boxes)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    shuffled = clip.clone()
    shuffled[:, 4, 3:] = clip[:, 4, 3:][:, order]
    scores = model(clip)
    torch.testing.assert_close(model(shuffled), scores, rtol=1e-4, atol=1e-5)
    fewer = clip.clone()
    fewer[:, :, 9:] = 0
    six = trained(num_boxes=6)
    six.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(fewer), six(clip[:, :, :9]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(fewer), scores, atol=1e-4)


def test_boxes_of_every_second_frame_are_nodes_of_its_step() -> None:
    model = trained(num_boxes=3)
    clip = clip_with(random_boxes(1, 8, 3))
    odd, even = clip.clone(), clip.clone()
    odd[:, 1::2, 3:], even[:, 6, 3:] = 0, 0
    scores = model(clip)
    assert torch.equal(model(odd), scores)
    assert not torch.allclose(model(even), scores, atol=1e-5)
    # By hand: the features of step t in the boxes of frame 2 t.
    body, volume = model.backbone, model.normalized(clip).transpose(1, 2)
    maps = body.reduce(super(type(body), body).forward(volume[:, :3]))[0].transpose(0, 1)
    boxes, shown = boxes_of_planes(clip[0, ::2, 3:] / 255)
    nodes = torch.cat([region_features(maps[t : t + 1], boxes[t : t + 1]) for t in range(4)])
    graph = body.graph(nodes[None], boxes[None], shown[None])
    features = torch.cat([maps.mean(dim=(0, 2, 3))[None], graph], dim=1)
    torch.testing.assert_close(model.head(features), scores, rtol=1e-4, atol=1e-5)


def test_a_clip_without_boxes_is_what_the_i3d_sees() -> None:
    model, new = trained(), make(THIN)
    new.load_state_dict(model.state_dict() | {k: v for k, v in new.state_dict().items() if "norm.weight" in k})
    clip = make_clip(channels=13)
    clip[:, :, 3:] = 0
    torch.testing.assert_close(model(clip), new(clip))


def test_bf16_and_odd_sizes() -> None:
    model = trained(num_frames=5)
    clip = clip_with(random_boxes(1, 5, 10))[..., :31, :27]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(clip)
    torch.testing.assert_close(mixed, model(clip), rtol=0.1, atol=0.1)
    assert model.bfloat16()(clip).isfinite().all()


def test_heat_maps() -> None:
    maps = grad_cam(trained(), clip_with(random_boxes(1, 8, 10)))
    assert maps.maps.shape[:2] == (1, 8)
    assert maps.maps.amax() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 2}, "num_frames is 2.*at least 3"),
        ({"num_boxes": 0}, "num_boxes is 0"),
        ({"modality": "flow"}, "'flow'.*boxes"),
    ],
)
def test_impossible_settings(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(THIN, num_classes=5, **{"num_frames": 8} | settings)


def test_wrong_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"13, H, W.*\(2, 8, 3, 32, 32\)"):
        make(THIN)(make_clip())
    with pytest.raises(ValueError, match=r"T=8.*got 6"):
        make(THIN)(make_clip(6, channels=13))


def test_costs() -> None:
    """With 174 classes; the published 62.2M are NL-I3D's and those of a ResNet-50 with its feature pyramid."""
    assert num_parameters("gcn_resnet50", num_classes=174, num_frames=32) == 38_699_502
    assert 2 * giga_multiply_adds("gcn_resnet50", num_classes=174, num_frames=32, size=224) == pytest.approx(
        449.5, abs=0.05
    )
    with torch.device("meta"):
        detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    pyramid = sum(parameter.numel() for parameter in detector.backbone.parameters())
    i3d = num_parameters("nl-i3d-fine_resnet50", num_classes=400, num_frames=32)
    assert (i3d + pyramid) / 1e6 == pytest.approx(62.2, abs=0.1)


def test_it_starts_from_a_run_of_its_i3d_and_from_image_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    image = torchvision.models.resnet50(weights=None)
    save_file(image.state_dict(), file)
    model = create_model("gcn_resnet50", num_classes=3, num_frames=4, weights=str(file))
    torch.testing.assert_close(model.backbone.layer4[2].conv3.weight[:, :, 0], image.layer4[2].conv3.weight)


def test_the_modality_and_the_extra_input_are_of_the_kind() -> None:
    config = ModelConfig(name=THIN, num_boxes=4)
    assert config.extra_planes == ("box",) * 4
    assert config.clip_channels == 7
    assert config.stem_channels == 3
