"""Time calls in rounds: one call of each in turn, until there are enough rounds or time is up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import torch

from vsn.models.measure import time_call_ms
from vsn.system.interrupt import StopRequest
from vsn.system.progress import progress_bar

MIN_ROUNDS = 3
"""Rounds that are measured regardless of the time limit: fewer give no median."""


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
    """Measure each call once per round, in a new random order every round.

    Args:
        calls: warmed-up calls.
        device: the device they run on.
        rounds: the number of rounds, at most.
        seconds: start no further round after this time, except the first three; 0: no limit.
        seed: of the orders. With a fixed order each call would always run after the same other call.
        title: of the progress bar.
        stop: a request to stop; the unfinished round is dropped.
        pause: seconds before each call. Threads of a runtime spin for milliseconds after a call, and would slow down
            another runtime.
        progress: draw a progress bar.

    Returns:
        Milliseconds of each call by round; values with the same index were measured in the same round.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in calls}
    generator, start = random.Random(seed), time.perf_counter()
    with progress_bar("batches", disable=not progress) as bar:
        task = bar.add_task(title, total=rounds * len(calls), note="")
        for number in range(rounds):
            if number >= MIN_ROUNDS and seconds and time.perf_counter() - start > seconds:
                break
            round_ms: dict[str, float] = {}
            for name in generator.sample(list(calls), len(calls)):
                if stop is not None and stop.requested:
                    return times_ms
                time.sleep(pause)  # not measured
                round_ms[name] = time_call_ms(calls[name], device)
                bar.update(task, advance=1, note=f"{name} {round_ms[name]:.1f} ms")
            # Appended only now, so that all calls have the same rounds.
            for name, value in round_ms.items():
                times_ms[name].append(value)
    return times_ms
