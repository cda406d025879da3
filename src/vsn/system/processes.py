"""The processes of a run: those that `torchrun` started, through `accelerate`, or this one alone.

`torchrun` says in the environment how many there are. Alone nothing is set up and nothing is sent.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    broadcast_object_list,
    gather_object,
)
from torch import nn

from vsn.config import ConfigError

Value = TypeVar("Value")


class Processes:
    """This process among the others of its run.

    Attributes:
        rank: which one it is, from 0.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(self, device: str = "auto") -> None:
        """Join the other processes, where `torchrun` started several, on the device called `device`.

        Raises:
            ConfigError: no such device here, or one device named for several processes.
        """
        self._accelerator: Accelerator | None = None
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            self.rank, self.size, self.device = 0, 1, pick_device(device)
            return
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"train.device is {device!r}, but {os.environ['WORLD_SIZE']} processes need one each: use 'auto', 'cuda' "
                "or 'cpu'."
            )
        per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda and per_machine > torch.cuda.device_count():
            raise ConfigError(
                f"{per_machine} processes were started on this machine, which has {torch.cuda.device_count()} GPUs; "
                f"start it with torchrun --nproc-per-node {torch.cuda.device_count()}, or set train.device = 'cpu'."
            )
        if device == "cuda" and not cuda:
            raise ConfigError("train.device is 'cuda' and there is no CUDA device here; use 'auto' or 'cpu'.")
        settings = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        self._accelerator = Accelerator(cpu=not cuda, mixed_precision="no", kwargs_handlers=[settings])
        atexit.register(_leave)
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the processes; alone the model itself."""
        return self._accelerator.prepare_model(model) if self._accelerator else model

    def without_sync(self, network: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Gradients computed inside stay with this process until the next ones are averaged."""
        return self._accelerator.no_sync(network) if self._accelerator else contextlib.nullcontext()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes, in float64. Every process must ask."""
        if self._accelerator is None:
            return list(values)
        # Not in float32: counts of large runs would no longer be exact. MPS, which lacks float64, has one process.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in the order of their ranks, in every process. Every process must ask."""
        return gather_object([value]) if self._accelerator else [value]

    def once(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the first process, in every process. Every process must ask."""
        if self._accelerator is None:
            return make()
        return cast(Value, broadcast_object_list([make() if self.first else None])[0])


def _leave() -> None:
    """End the connections to the other processes: their threads may crash a process that ends under them."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"The device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}); use 'auto' or 'cpu'."
        ) from error
    return device
