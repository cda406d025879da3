"""Label three RTSP cameras with one model for minutes, of which one is killed and restarted meanwhile.

    python benchmarks/cameras.py MODEL OUT.json [--minutes 10] [--down-at 180] [--down-seconds 20]

MODEL is a run or an exported file. The cameras are GStreamer's servers of the tests, each a process of its own. Recorded
are the windows of each camera, the longest time without one, dropped frames, restored connections, and the memory.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from common import describe_run
from vsn.config import LiveConfig, WindowConfig
from vsn.inference.predictor import open_predictor
from vsn.stream.labels import WindowPrediction
from vsn.stream.stream import Stream, run_streams
from vsn.system.files import write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.rtsp import rtsp_server

GRAYS = (64, 128, 192)
KILLED = 2
"""Index of the camera that is killed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--down-at", type=float, default=180.0, help="seconds after the first window")
    parser.add_argument("--down-seconds", type=float, default=20.0)
    options = parser.parse_args()
    predictor = open_predictor(options.model, device="cpu")
    live = LiveConfig(reconnects=1000, reconnect_wait=0.5, stop_after=60 * options.minutes)
    moments: dict[Stream, list[float]] = {}
    memory: list[int] = []
    process = psutil.Process()
    with ExitStack() as stack:
        servers = [stack.enter_context(rtsp_server()) for _ in GRAYS]
        cameras = [
            Stream(predictor, server.url(gray), windows=WindowConfig(seconds=2), live=live)
            for server, gray in zip(servers, GRAYS, strict=True)
        ]

        def fail() -> None:
            servers[KILLED].kill()
            time.sleep(options.down_seconds)
            servers[KILLED].start()

        timer = threading.Timer(options.down_at, fail)
        timer.start()

        def note(stream: Stream, _: WindowPrediction) -> None:
            moments.setdefault(stream, []).append(time.monotonic())
            memory.append(process.memory_info().rss)

        load_before = os.getloadavg()
        run_streams(cameras, note)
        timer.join()
    rows: list[dict[str, Any]] = []
    for index, camera in enumerate(cameras):
        times, summary = moments[camera], camera.summary
        rows.append(
            {
                "killed": index == KILLED,
                "seconds": round(summary.seconds, 1),
                "windows": summary.num_predictions,
                "windows_per_second": round(summary.num_predictions / summary.seconds, 3),
                "longest_without_seconds": round(max(after - before for before, after in itertools.pairwise(times)), 2),
                "frames": summary.num_frames,
                "dropped": summary.dropped,
                "skipped": summary.skipped,
                "reconnected": summary.reconnected,
                "lost": summary.lost,
                "lag_ms_median": round(statistics.median(summary.lags_ms), 1),
            }
        )
    tenth = max(1, len(memory) // 10)
    facts = describe_run(__file__, [options.model.name, f"results/{options.out.name}", *sys.argv[3:]])
    write_json(
        options.out,
        facts
        | {
            "every_seconds": cameras[0].grid.every,
            "load_before": load_before,
            "load_after": os.getloadavg(),
            "memory_mb": {
                "first_tenth": round(statistics.median(memory[:tenth]) / 1e6, 1),
                "last_tenth": round(statistics.median(memory[-tenth:]) / 1e6, 1),
            },
            "cameras": rows,
        },
    )
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
