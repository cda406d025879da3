"""Measure the memory of `vsn serve` at the most expensive inputs that it accepts, alone and at full concurrency.

    python benchmarks/serve_memory.py --out results/serve-memory-cpu.json

The video has the largest frames that the limits allow, the largest ratio of its sides, and reference frames that its
decoder must keep; it is long enough for a timeline with all windows. It is sent once to be labeled, once for heat maps,
and then by as many clients at once as the service takes. The memory of all processes is sampled, and compared with
the bound of docs/serve.md. Requests may time out: what counts is the memory until then.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil

from common import describe_run
from serving import Served, make_run
from vsn.config import ServeConfig
from vsn.runs.run import open_run
from vsn.serve.decoding import max_model_pixels
from vsn.system.files import write_json

RATIO = 4
"""Of the sides of a frame: `max_model_pixels` allows no more by default."""
ALLOCATOR_SHARE = 0.4
"""What the process of the service keeps in pieces too small for later use, as a share of what it uses; measured: 0.36."""
_SAMPLE_SECONDS = 0.1


def make_worst_video(path: Path, *, num_pixels: int, seconds: float, rate: int = 2) -> Path:
    """Write H.264 with frames of this many pixels, RATIO times as wide as high, and 16 reference frames."""
    height = 2 * int(math.sqrt(num_pixels / RATIO) / 2)
    width = RATIO * height
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "x264-params": "ref=16:bframes=0"}
        for number in range(int(seconds * rate)):
            pixels = np.full((height, width, 3), (9 * number) % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class Memory:
    """Samples of the memory of a service: of all processes, and of those that decode, MB."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.max_mb = self.max_service_mb = 0.0
        self.max_decoders_mb: list[float] = []
        """Resident memory of each decoding process at once, in the sample with the largest sum."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample until the end of the block."""
        end = threading.Event()
        thread = threading.Thread(target=self._sample_until, args=(end,))
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _sample_until(self, end: threading.Event) -> None:
        while True:
            self.max_mb = max(self.max_mb, self._served.memory_mb())
            self.max_service_mb = max(self.max_service_mb, _resident_mb(psutil.Process(self._served.process.pid)))
            decoders = [_resident_mb(process) for process in self._served.decoders()]
            self.max_decoders_mb = max(self.max_decoders_mb, decoders, key=sum)
            if end.wait(_SAMPLE_SECONDS):
                return


def _resident_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.Error:  # it has ended
        return 0.0


def upload(url: str, path: str, video: bytes) -> str:
    """Upload a video; return the status and the code of the error."""
    answer = httpx.post(f"{url}{path}", files={"video": video}, timeout=1200)
    return f"{answer.status_code} {answer.json().get('error', {}).get('code', '')}".strip()


def clips_bound_mb(limits: ServeConfig, *, clip_mb: float) -> float:
    """Return the memory of decoded clips: see docs/serve.md."""
    timeline_mb = clip_mb * (1 + limits.max_windows)
    # One more timeline than decoders waits for the model; what a decoder sends is held twice while it is received.
    num_timelines = 2 * limits.decode_workers + 1
    # Clips of other videos, and the batch that is computed.
    return num_timelines * timeline_mb + (limits.decode_workers + 2 * limits.max_batch) * clip_mb


def measure(served: Served, limits: ServeConfig, video: bytes, *, clip_mb: float, requests: int) -> dict[str, Any]:
    """Send the video in every way; return the parts of the bound and the maxima."""
    parts: dict[str, Any] = {"idle_mb": served.memory_mb()}
    idle_service_mb = _resident_mb(psutil.Process(served.process.pid))
    ways = {
        "labeled": (["/v1/predict"], 1),
        "heat_maps": (["/v1/explain"], 1),
        "at_once": (["/v1/predict?timeline=true&frames=true", "/v1/explain"], requests),
    }
    for name, (paths, count) in ways.items():
        memory = Memory(served)
        with memory.watched(), ThreadPoolExecutor(count) as pool:
            answers = list(
                pool.map(
                    lambda number, paths=paths: upload(served.url, paths[number % len(paths)], video), range(count)
                )
            )
        parts[name] = {
            "requests": count,
            "answers": dict(Counter(answers)),
            "max_mb": memory.max_mb,
            "max_service_mb": memory.max_service_mb,
            "max_decoders_mb": memory.max_decoders_mb,
        }
        print(name, parts[name], flush=True)
    model_mb = max(parts[name]["max_service_mb"] for name in ("labeled", "heat_maps")) - idle_service_mb
    bound = memory_bound(limits, idle_mb=parts["idle_mb"], clip_mb=clip_mb, model_mb=model_mb)
    return {**parts, "bound": bound, "holds": holds(bound, parts["at_once"])}


def memory_bound(limits: ServeConfig, *, idle_mb: float, clip_mb: float, model_mb: float) -> dict[str, float]:
    """Return the parts of the bound and their sum."""
    service = {"idle_mb": idle_mb, "clips_mb": clips_bound_mb(limits, clip_mb=clip_mb), "model_mb": model_mb}
    service["allocator_mb"] = ALLOCATOR_SHARE * sum(service.values())
    decoders_mb = limits.decode_workers * limits.decode_memory_mb
    return {**service, "decoders_mb": decoders_mb, "sum_mb": sum(service.values()) + decoders_mb}


def holds(bound: dict[str, float], at_once: dict[str, Any]) -> bool:
    """Return whether all processes together, and that of the service by itself, took no more than their bound."""
    service_mb = bound["sum_mb"] - bound["decoders_mb"]
    return bool(at_once["max_mb"] <= bound["sum_mb"] and at_once["max_service_mb"] <= service_mb)


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    limits = ServeConfig()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="vsn_resnet50")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--requests", type=int, default=limits.max_requests, help="at once; at most --max-requests")
    parser.add_argument("--max-pixels", type=int, default=limits.max_pixels)
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory(prefix="vsn-memory-") as folder:
        work = Path(folder)
        run = make_run(work / "run", model=options.model, short_side=options.short_side)
        num_pixels = max_model_pixels(limits, open_run(run).recipe)
        video = make_worst_video(
            work / "worst.mp4", num_pixels=options.max_pixels, seconds=limits.timeline_seconds + 2
        ).read_bytes()
        served = Served(run, work, ["--max-pixels", str(options.max_pixels)])
        try:
            result = measure(served, limits, video, clip_mb=3 * num_pixels / 1e6, requests=options.requests)
            served.stop()
        finally:
            served.kill()
    config = {name: getattr(options, name) for name in ("model", "short_side", "requests", "max_pixels")}
    out = given.index("--out")
    command = [*given[:out], "--out", f"results/{options.out.name}", *given[out + 2 :]]
    write_json(
        options.out,
        {
            "what": "memory of vsn serve at the most expensive accepted videos: benchmarks/serve_memory.py",
            **describe_run(__file__, command),
            "config": {**config, "num_model_pixels": num_pixels, "num_video_bytes": len(video)},
            **result,
        },
    )
    print(result["bound"])
    if not result["holds"]:
        raise SystemExit(f"the bound does not hold: {result['at_once']['max_mb']:.0f} MB")


if __name__ == "__main__":
    main()
