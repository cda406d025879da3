"""Every kind of model is described for readers who do not know its name."""

from vsn.config import MODELS, ModelConfig, describe_model
from vsn.config.about import KINDS


def test_every_kind_is_described() -> None:
    assert KINDS.keys() == MODELS.keys()
    assert describe_model(ModelConfig(name="vsn_resnet50", modality="flow")).endswith(", on resnet50, on optical flow")
    assert describe_model(ModelConfig(name="s3d")) == KINDS["s3d"]
