"""Published peers as ONNX: the file, for any frame size, scores as PyTorch does on frames of another size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vsn.config import ClipSpec, ExportConfig, ModelConfig, Recipe
from vsn.export.export import export_model
from vsn.models import build_model
from vsn.models.peers.cpnet import CorrespondenceProposal

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.needs("onnxruntime")


# Traced and written for symbolic sizes: about ten seconds each.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["i3d_inception_thin", "cost_resnet26_thin", "cpnet_resnet26_thin", "cluster_resnet14_tiny"]
)
def test_an_onnx_file_for_any_size_scores_as_pytorch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=5, num_frames=4)
    model = build_model(config).eval()
    nn.init.normal_(model.head.weight)
    for module in model.modules():
        if isinstance(module, CorrespondenceProposal):  # which adds nothing at its start
            nn.init.normal_(module.bn.weight)
    recipe = Recipe(model=config, clip=ClipSpec(short_side=64, crop_size=64))
    report = export_model(model, recipe, tmp_path / name, config=ExportConfig(any_size=True))
    session = ort.InferenceSession(str(report.path))
    clip = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 48, 81), dtype=np.uint8)
    (logits,) = session.run(["logits"], {"clip": clip})
    with torch.inference_mode():
        expected = model(torch.from_numpy(clip)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
