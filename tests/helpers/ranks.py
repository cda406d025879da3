"""Run functions in several ranks, as torchrun starts them, but forked from a process that has imported torch."""

import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vsn.config import Recipe
from vsn.training.train import train

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["vsn.training.train", "vsn.training.batch_size"])


def run_ranks(size: int, function: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list[Any]:
    """Call `function(*arguments)` in so many processes; what each returns, or the error of one as text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = [_CONTEXT.Pipe() for _ in range(size)]
    children = [
        _CONTEXT.Process(target=_one_rank, args=(rank, size, port, answers[rank][1], function, arguments))
        for rank in range(size)
    ]
    for child in children:
        child.start()
    try:
        found = []
        for rank, (receiver, _) in enumerate(answers):
            assert receiver.poll(seconds), f"process {rank} has not answered for {seconds} seconds"
            found.append(receiver.recv())
    finally:
        for child in children:
            child.join(5)
            child.kill()
    failed = [error for good, error in found if not good]
    assert not failed, "\n".join(failed)
    return [value for _, value in found]


def _unblock_signals() -> None:
    """The fork server of all tests may have been started by one that blocks signals, as the service does."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _one_rank(rank: int, size: int, port: int, answer: Any, function: Callable[..., Any], arguments: Any) -> None:
    _unblock_signals()
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        answer.send((True, function(*arguments)))
    except BaseException:
        answer.send((False, f"process {rank}: {traceback.format_exc()}"))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def train_quietly(recipe: Recipe, path: Path, resume: bool = False) -> None:
    train(recipe, path, resume=resume, console=Console(quiet=True))


def run_killed(function: Callable[..., Any], *arguments: Any, after: float | None = None) -> int | None:
    """Call `function(*arguments)` in a process that dies of SIGKILL, which it sends itself or gets after so many seconds.

    Returns its exit status: -9 when it was killed, 0 when it finished before.
    """
    child = _CONTEXT.Process(target=_one_thread, args=(function, arguments))
    child.start()
    child.join(after if after is not None else 120)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode


def _one_thread(function: Callable[..., Any], arguments: Any) -> None:
    _unblock_signals()
    torch.set_num_threads(1)
    function(*arguments)
