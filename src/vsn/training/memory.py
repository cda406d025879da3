"""Reduce the memory of training: checkpointed activations, channels-last weights, and out-of-memory errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vsn.models import VideoClassifier
from vsn.models.blocks import stage_blocks

MEMORY_ADVICE = (
    "These change no result: train.checkpoint_activations = true, or a larger "
    "train.accumulate. These do: train.precision = 'bf16', or a smaller clip.crop_size, model.num_frames or "
    "train.batch_size. `vsn train ... --find-batch-size` finds what fits."
)
_OUT_OF_MEMORY_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory",  # Windows
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
OUT_OF_MEMORY = f"There is not enough memory for this step. {MEMORY_ADVICE}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that GPU or CPU memory ran out."""
    # For the CPU and for workspaces of CUDA's libraries PyTorch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def kept_bytes(network: nn.Module, clips: torch.Tensor) -> int:
    """Run a network, and return the bytes of what autograd keeps for its backward pass, without the weights.

    On the meta device nothing is computed or stored.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # views share a storage, which counts once
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(clips)
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in weights)


def describe_lack(num_videos: int, kept: int, available: int) -> str:
    """Say that a step on the CPU may not fit into memory; "" where it fits.

    Args:
        num_videos: in one part of a step.
        kept: bytes that it keeps for its backward pass, see `kept_bytes`; a fifth comes to it for workspaces.
        available: bytes that the process can take.
    """
    if 1.2 * kept <= available:
        return ""
    return (
        f"A step with {num_videos} videos at once keeps about {kept / 1e9:.1f} GB until its backward pass, and "
        f"{available / 1e9:.1f} GB are free: the system may end this training without a message. {MEMORY_ADVICE}"
    )


def to_channels_last(model: nn.Module, *, volumes: bool = False) -> None:
    """Convert the weights of 2D convolutions, with ``volumes`` also of 3D ones, to channels-last, in place."""
    # `model.to(memory_format=...)` raises for a model that has both 4D and 5D weights.
    layouts = {4: torch.channels_last} | ({5: torch.channels_last_3d} if volumes else {})
    for parameter in model.parameters():
        if parameter.ndim in layouts:
            parameter.data = parameter.data.to(memory_format=layouts[parameter.ndim])


def checkpoint_activations(model: VideoClassifier) -> None:
    """Recompute the activations of residual and inception blocks in the backward pass instead of storing them.

    Weights, gradients, batch statistics and names are bit-equal to training without it.

    Raises:
        ConfigError: the blocks of this backbone are not known.
    """
    for names in stage_blocks(model.backbone).values():
        for name in names:
            block = model.backbone.get_submodule(name)
            contexts = partial(_forward_and_recompute_contexts, block)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


def _forward_and_recompute_contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _keep_statistics(block)


@contextlib.contextmanager
def _keep_statistics(block: nn.Module) -> Iterator[None]:
    """Stop batch normalization from counting the recomputed batch a second time in its running statistics."""
    saved = [(m, m.momentum, m.num_batches_tracked) for m in block.modules() if isinstance(m, _BatchNorm)]
    # Statistics that are not passed at all would be simpler, but `checkpoint` requires that the recomputation
    # saves the same tensors. A momentum of 0 passes them and leaves them; the counter is replaced by a copy.
    for norm, _, count in saved:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in saved:
            norm.momentum, norm.num_batches_tracked = momentum, count
