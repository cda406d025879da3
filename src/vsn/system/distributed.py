"""Choose a device and connect the processes that `torchrun` started."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from vsn.config import ConfigError

Value = TypeVar("Value")


class Distributed:
    """The process group of a run; with one process every operation returns its input and no group is created.

    Attributes:
        rank: index of this process, from 0.
        world_size: number of processes.
        device: the device of this process.
    """

    def __init__(self, device: str = "auto") -> None:
        """Join the process group that the environment variables of `torchrun` describe.

        Raises:
            ConfigError: ``device`` is not available, or it names one device for several processes.
        """
        self.rank, self.world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.world_size == 1:
            self.rank, self.device = 0, pick_device(device)
            return
        # Each rank takes the GPU of its local rank; a name such as "cuda:0" would put all of them on one.
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"train.device is {device!r}, but {self.world_size} processes need one each: use 'auto', 'cuda' or 'cpu'."
            )
        use_cuda = device != "cpu" and torch.cuda.is_available()
        if device == "cuda" and not use_cuda:
            raise ConfigError("train.device is 'cuda', but there is no CUDA device here; use 'auto' or 'cpu'.")
        processes_here, num_gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if use_cuda and processes_here > num_gpus:
            raise ConfigError(
                f"{processes_here} processes were started on this machine, which has {num_gpus} GPUs; use torchrun "
                f"--nproc-per-node {num_gpus}, or set train.device = 'cpu'."
            )
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
        if use_cuda:
            torch.cuda.set_device(self.device)  # NCCL sends objects through the current device
        # Training, then evaluation, in one process: both construct this class and share the group.
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if use_cuda else "gloo")
            # Threads of a group that is still open can crash the interpreter at exit.
            atexit.register(_destroy_process_group)

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes the files and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the model in `DistributedDataParallel`, which averages gradients over the ranks."""
        if self.world_size == 1:
            return model
        # Buckets as views save a copy of all gradients.
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)

    def no_sync(self, network: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Accumulate gradients locally inside the context; the next backward pass outside it averages them."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sum each value over the ranks, in float64. Every rank must call it."""
        if self.world_size == 1:
            return list(values)
        # float32 counts exactly only up to 2**24. MPS has no float64, but runs as one process.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def all_gather(self, value: Value) -> list[Value]:
        """Return the value of every rank, in rank order. Every rank must call it; values are pickled."""
        values: list[Any] = [value]
        if self.world_size > 1:
            values = [None] * self.world_size
            distributed.all_gather_object(values, value)
        return values

    def broadcast_from_rank0(self, make: Callable[[], Value]) -> Value:
        """Call ``make`` on rank 0 and return its result on every rank. Every rank must call it."""
        # Objects go pickled through the default group; `make` must not run on the other ranks, as it may write.
        values: list[Any] = [make() if self.is_rank0 else None]
        if self.world_size > 1:
            distributed.broadcast_object_list(values, src=0)
        value: Value = values[0]
        return value


def _destroy_process_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is CUDA if there is one, else the CPU.

    Raises:
        ConfigError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Only an allocation shows that a device works: "cuda:7" parses on any machine.
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"The device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}); use 'auto' or 'cpu'."
        ) from error
    return device
