"""Rounds: one batch of each call in turn, until there are enough or time is up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import torch

from vsn.models.measure import time_round
from vsn.system.interrupt import StopRequest
from vsn.system.progress import progress_bar

MIN_ROUNDS = 3
"""Taken whatever the time: fewer tell no median."""


def time_rounds(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    seconds: float = 0.0,
    seed: int = 0,
    title: str = "measuring",
    stop: StopRequest | None = None,
    pause: float = 0.0,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Milliseconds of each call in every round. Within a round the order is drawn anew.

    Args:
        calls: what is timed, warmed up.
        device: whose clock counts.
        rounds: how many, at most.
        seconds: no further round begins after so long, but for the first three; 0: no limit.
        seed: of the orders: none always runs after the same other.
        title: of the progress bar.
        stop: a request to stop, which ends the round at once; a round that is not whole is left out.
        pause: seconds before each call. Threads of one runtime wait for work by spinning, for milliseconds
            after a call, and would slow those of another.
        progress: draw a progress bar.

    Returns:
        As many values for each call, those of one round at one index.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    draw, begin = random.Random(seed), time.perf_counter()
    with progress_bar("batches", disable=not progress) as bar:
        task = bar.add_task(title, total=rounds * len(calls), note="")
        for number in range(rounds):
            if number >= MIN_ROUNDS and seconds and time.perf_counter() - begin > seconds:
                break
            one: dict[str, float] = {}
            for name in draw.sample(list(calls), len(calls)):
                if stop is not None and stop.requested:
                    return found
                time.sleep(pause)
                one |= time_round({name: calls[name]}, device)
                bar.advance(task)
                bar.update(task, note=f"{name} {one[name]:.1f} ms")
            for name, value in one.items():
                found[name].append(value)
    return found
