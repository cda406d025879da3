"""`vsn models`: list model names."""

from __future__ import annotations

from typing import Annotated

import tyro


def models(pattern: Annotated[str, tyro.conf.Positional] = "*") -> None:
    """List the models that need no extra package.

    Args:
        pattern: only names that match it, such as 'vsn_*'.
    """
    from vsn.models import list_models

    names = list_models(pattern)
    if not names and "_timm/" in pattern:
        names = [_timm_model(pattern)]
    if not names:
        raise ValueError(f"No model name matches {pattern!r}; `vsn models` lists all of them.")
    print("\n".join(names))


def _timm_model(name: str) -> str:
    """Return the name of a model on a timm backbone if it can be built; timm has too many to list."""
    import torch

    from vsn.config import ModelConfig
    from vsn.models import build_model

    if set("*?[") & set(name):
        raise ValueError(
            f"{name!r} is a pattern of models on timm backbones, which are not listed; pass one name, such as "
            "vsn_timm/resnet26d. timm.list_models() has the names of the backbones."
        )
    with torch.device("meta"):  # without weights; raises if timm is missing, has no such backbone, or it does not fit
        build_model(ModelConfig(name=name, num_classes=1))
    return name
