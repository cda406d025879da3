"""What training needs of memory: less of it, and how much fits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vsn.models import VideoClassifier
from vsn.models.blocks import stage_blocks

OUT_OF_MEMORY = (
    "There is not enough memory for this step. What helps, first what changes no result: train.checkpoint_activations "
    "= true; a larger train.accumulate (the same step in more parts); train.precision = 'bf16'; a smaller "
    "clip.crop_size, model.num_frames or train.batch_size. `vsn train ... --find-batch-size` tells what fits."
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def to_channels_last(model: nn.Module, *, volumes: bool = False) -> None:
    """Lay out the weights of 2D convolutions channels-last, in place, with ``volumes`` those of 3D ones too.

    In training 3D convolutions stay as they are: whether the layout helps them was not measured. PyTorch's own
    conversion refuses a model that has both.
    """
    layouts = {4: torch.channels_last} | ({5: torch.channels_last_3d} if volumes else {})
    for parameter in model.parameters():
        if parameter.ndim in layouts:
            parameter.data = parameter.data.to(memory_format=layouts[parameter.ndim])


def checkpoint_activations(model: VideoClassifier) -> None:
    """Let residual and inception blocks keep their inputs alone and compute the rest again when gradients need it.

    Weights, names, gradients and batch statistics stay the same to the last bit: computing again does
    not count a batch twice.

    Raises:
        ConfigError: where the backbone's blocks are is not known.
    """
    for names in stage_blocks(model.backbone).values():
        for name in names:
            block = model.backbone.get_submodule(name)
            again: Callable[[], Any] = partial(_contexts, block)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=again)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _statistics_kept(block)


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let batch normalization leave its running statistics alone."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    former = [
        (module.momentum, None if module.num_batches_tracked is None else module.num_batches_tracked.clone())
        for module in norms
    ]
    for module in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, (momentum, count) in zip(norms, former, strict=True):
            module.momentum = momentum
            if count is not None and module.num_batches_tracked is not None:
                module.num_batches_tracked.copy_(count)


def largest_batch(step: Callable[[int], Tensor | None], *, most: int) -> int:
    """The largest number of videos, up to `most`, with which `step` runs without running out of memory.

    It doubles until it fails, then halves the gap. 0 when not even one video fits.
    """
    fits, fails = 0, most + 1
    tried = 1
    while fits + 1 < fails:
        tried = min(most, max(1, 2 * fits)) if fails > most else (fits + fails) // 2
        if _runs(step, tried):
            fits = tried
        else:
            fails = tried
    return fits


def _runs(step: Callable[[int], Tensor | None], num_videos: int) -> bool:
    try:
        step(num_videos)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True
