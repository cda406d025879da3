"""Load test `vsn serve` with concurrent uploads: valid, invalid, huge, slow and aborted ones, on loopback.

    python benchmarks/load.py RUN results/NAME.json [--minutes 5] [--clients 8] [--video FILE]

First the speed without a service is measured: clips per second of the network, and videos read and predicted one after
the other in one process. Then the service is started. The first third of the time has only valid uploads, whose
throughput and latency are the figures to compare, the rest a mix. A wrong status, a file left over or an exit of the
process is an error. The memory of the service is recorded every second.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from common import describe_run
from serving import Served, growth, make_video, percentiles
from vsn.config import ServeConfig
from vsn.inference.inputs import views_of_video
from vsn.inference.predictor import Predictor
from vsn.serve.models import open_model
from vsn.system.files import write_json

LIMIT_MB = 4.0
SHARES = {"good": 0.6, "text": 0.1, "huge": 0.1, "slow": 0.1, "cut": 0.1}
"""Share of each kind of upload in the mix."""
EXPECTED = {"good": {200, 503}, "text": {415, 503}, "huge": {413, 503}, "slow": {200, 503}, "cut": {None}}
"""Kind -> right statuses; 503: the queue is full; None: no answer, the client has disconnected."""


def speed_without_service(run: Path, video: Path, *, seconds: float) -> dict[str, float]:
    """Measure clips per second of the network, and videos per second read and predicted."""
    predictor, model = Predictor.from_run(run), open_model(run)
    clip = views_of_video(video, predictor.recipe, predictor.recipe.eval)
    rates = {}
    for name, work in (
        ("model_clips_per_second", lambda: model.score([clip])),
        ("predict_videos_per_second", lambda: predictor.predict(video)),
    ):
        work()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            work()
            count += 1
        rates[name] = count / (time.perf_counter() - start)
    return rates


async def dripped(content: bytes, *, seconds: float, pieces: int, cut: bool) -> AsyncIterator[bytes]:
    """Send a form in pieces; cut: abort after half of it."""
    yield b'--x\r\nContent-Disposition: form-data; name="video"; filename="v"\r\n\r\n'
    size = -(-len(content) // pieces)
    for number, start in enumerate(range(0, len(content), size)):
        if cut and number == pieces // 2:
            raise ConnectionAbortedError
        await asyncio.sleep(seconds / pieces)
        yield content[start : start + size]
    yield b"\r\n--x--\r\n"


async def upload(client: httpx.AsyncClient, kind: str, video: bytes) -> int | None:
    """Upload once; return the status of the answer, None without one."""
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        match kind:
            case "slow" | "cut":
                body = dripped(video, seconds=2.0, pieces=20, cut=kind == "cut")
                answer = await client.post("/v1/predict", content=body, headers=form)
            case _:
                huge = bytes(int(4 * LIMIT_MB * 1e6))
                content = {"good": video, "text": b"no video" * 1000, "huge": huge}[kind]
                answer = await client.post("/v1/predict", files={"video": content})
    except (httpx.TransportError, ConnectionAbortedError):
        return None
    answer.json()  # every answer is JSON
    return answer.status_code


async def drive(
    served: Served, video: bytes, *, seconds: float, clients: int, shares: dict[str, float], seed: int
) -> tuple[dict[str, Any], list[float]]:
    """Run clients that each upload again as soon as they have an answer; return figures and memory per second."""
    until = time.perf_counter() + seconds
    statuses: dict[str, Counter[int | None]] = defaultdict(Counter)
    latencies: dict[str, list[float]] = defaultdict(list)
    memory: list[float] = []

    async def client_of(number: int) -> None:
        generator = random.Random(seed + number)
        async with httpx.AsyncClient(base_url=served.url, timeout=120) as client:
            while time.perf_counter() < until:
                (kind,) = generator.choices(list(shares), list(shares.values()))
                start = time.perf_counter()
                status = await upload(client, kind, video)
                statuses[kind][status] += 1
                if status is not None:
                    latencies[f"{kind} {status}"].append(1000 * (time.perf_counter() - start))
                if status == 503:
                    await asyncio.sleep(generator.uniform(0.5, 1.5))

    async def watch() -> None:
        while time.perf_counter() < until:
            memory.append(round(served.memory_mb(), 1))
            await asyncio.sleep(1.0)

    start = time.perf_counter()
    await asyncio.gather(watch(), *(client_of(number) for number in range(clients)))
    took = time.perf_counter() - start
    figures = {
        "seconds": took,
        "answers": {kind: {str(s): n for s, n in counts.items()} for kind, counts in statuses.items()},
        "wrong_answers": sum(
            n for kind, counts in statuses.items() for s, n in counts.items() if s not in EXPECTED[kind]
        ),
        "good_per_second": statuses["good"][200] / took,
        "latency_ms": {name: percentiles(values) for name, values in sorted(latencies.items())},
        "memory_mb": memory,
    }
    return figures, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--video", type=Path, help="a valid video; default 3 s of moving texture")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="vsn-load-") as work:
        video = options.video or make_video(Path(work) / "video.mp4")
        own = speed_without_service(options.run, video, seconds=min(20.0, seconds / 6))
        served = Served(options.run, Path(work), ["--max-upload-mb", str(LIMIT_MB)])
        try:
            mixes = {"good": {"good": 1.0}, "mixed": SHARES}
            parts: dict[str, Any] = {}
            memory: list[float] = []
            for (name, shares), part in zip(mixes.items(), (1 / 3, 2 / 3), strict=True):
                figures, more = asyncio.run(
                    drive(
                        served,
                        video.read_bytes(),
                        seconds=seconds * part,
                        clients=options.clients,
                        shares=shares,
                        seed=options.seed,
                    )
                )
                parts[name], memory = figures, [*memory, *more]
            left = served.wait_for_no_files()
            counters = httpx.get(f"{served.url}/metrics").text
        finally:
            status = served.stop()
        left_at_end = sum(1 for _ in Path(work).rglob("upload-*"))
    result = {
        "what": "vsn serve under load: benchmarks/load.py",
        **describe_run(__file__, ["RUN", f"results/{options.out.name}", *sys.argv[3:]]),
        "config": {"clients": options.clients, "max_upload_mb": LIMIT_MB, "shares": SHARES},
        "limits": {
            "max_requests": ServeConfig().max_requests,
            "decode_workers": ServeConfig().decode_workers,
        },
        "own_speed": own,
        "parts": parts,
        "good_to_model": parts["good"]["good_per_second"] / own["model_clips_per_second"],
        "good_to_predict": parts["good"]["good_per_second"] / own["predict_videos_per_second"],
        "memory": growth(memory),
        "files_left": left,
        "files_left_at_end": left_at_end,
        "exit_status": status,
        "counters": [line for line in counters.splitlines() if line.startswith("vsn_requests_total")],
    }
    write_json(options.out, result)
    wrong = sum(part["wrong_answers"] for part in parts.values())
    good = parts["good"]
    print(
        f"{wrong} wrong answers, {left} files left, exit status {status}; memory {result['memory']}\n"
        f"valid uploads only: {good['good_per_second']:.1f}/s, {result['good_to_predict']:.2f} of vsn predict, "
        f"latency {good['latency_ms']}"
    )
    if wrong or left or left_at_end or status:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
