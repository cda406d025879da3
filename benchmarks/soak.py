"""Run `vsn serve` at full concurrency while requests are bad, decoders are killed and the service is restarted.

    python benchmarks/soak.py --minutes 10 --out results/serve-soak-cpu.json

More clients than the service takes at once upload in turn; one request in ten is bad: a picture that would be blown up,
a truncated video, a slow or stalled upload, a client that leaves during the upload or after it. At intervals a decoder
is killed; in the middle the process group gets SIGTERM, and the service is started again on the same port.

Every good video must get the labels and probabilities that it gets alone, or 503. Every bad one must get the answer
that it gets alone, or 503. The service's own counts must equal those of the clients, no file may be left, and memory
must be flat. Anything else ends with exit status 1. Only loopback is used; without --run a network with random weights
is served, which is as good for this.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from common import describe_run
from serving import Served, growth, make_run, make_video, percentiles, slope
from vsn.config import ServeConfig
from vsn.system.files import write_json

BAD_SHARE = 0.1
BAD = ("wide", "truncated", "slow", "stalled", "leaves early", "leaves late")
UPLOAD_SECONDS = 4.0
"""Limit of the service for an upload: a slow one stays within it, a stalled one does not."""
MAX_GROWTH = 0.05
"""Growth of memory from the second to the last quarter of the longer part that fails."""
CHECKED_SECONDS = 100.0
"""Shorter parts are warm-up: their memory is recorded, but cannot fail."""
_CONCURRENCY_FACTOR = 1.25
_PAUSE_SECONDS = 0.05
_ANSWER_SECONDS = 120.0
_BOUNDARY = "soak"
HONEST = ("busy", "stopping", "decoder_killed")
"""Codes of a 503 that any request may get."""


@dataclass(frozen=True)
class Answer:
    """A response: status, code of the error, and the labels with their probabilities."""

    status: int
    code: str = ""
    predictions: str = ""

    @property
    def is_honest_refusal(self) -> bool:
        """Whether it is a 503 that any request may get."""
        return self.status == 503 and self.code in HONEST


@dataclass
class Counts:
    """What the clients saw of one process of the service."""

    answers: Counter[int] = field(default_factory=Counter)
    left: int = 0
    """Requests of clients that left after the service had begun to read them."""
    refused: int = 0
    """Connections that were refused or closed without an answer: only while the service stops or starts."""


@dataclass
class Soak:
    """State of a run."""

    served: Served
    videos: dict[str, bytes]
    alone: dict[str, Answer] = field(default_factory=dict)
    """Answer to each video when nothing else is uploaded."""
    counts: Counts = field(default_factory=Counts)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    """Kind of request -> how often each outcome."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of good requests that were labeled."""
    wrong: list[str] = field(default_factory=list)
    until: float = 0.0
    """End, by `time.monotonic`; moved by the time that a restart takes."""
    is_stopping: bool = False
    """From the signal until the next process is ready."""
    is_paused: bool = False
    num_running: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the time is over; not during a restart, which moves the end."""
        return not self.is_stopping and time.monotonic() >= self.until

    def record(self, kind: str, name: str, outcome: Answer | None, *, was_stopping: bool) -> None:
        """Count and judge the outcome of a request: an answer, or None for a connection without one."""
        if outcome is None:
            self.counts.refused += 1
            text = "no answer"
            is_right = was_stopping or self.is_stopping
        else:
            self.counts.answers[outcome.status] += 1
            text = f"{outcome.status} {outcome.code}".strip()
            too_slow = Answer(408, "upload_too_slow")
            expected = too_slow if kind == "stalled" else self.alone[name]
            # On a busy machine a client may see only after the limit that the service has begun.
            is_right = (
                outcome == expected or outcome.is_honest_refusal or (kind == "leaves early" and outcome == too_slow)
            )
        self.answers.setdefault(kind, Counter())[text] += 1
        if not is_right:
            self.wrong.append(f"{kind} {name}: {outcome}")


def parse(raw: bytes) -> Answer | None:
    """Parse an HTTP response; None for nothing or part of one."""
    head, _, body = raw.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    if match is None:
        return None
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return Answer(
        int(match[1]),
        content.get("error", {}).get("code", ""),
        json.dumps(content["predictions"]) if "predictions" in content else "",
    )


class Exchange(asyncio.Protocol):
    """A connection that keeps what it has received, also when it is reset while a refused upload is still sent."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def stage_of(url: httpx.URL, request_id: str) -> str:
    """Return the stage that the service reports of a request."""
    async with httpx.AsyncClient(timeout=30) as client:
        try:
            return str((await client.get(f"{url}/v1/progress/{request_id}")).json()["stage"])
        except httpx.TransportError:
            return "unknown"


async def request(soak: Soak, kind: str, name: str, request_id: str) -> Answer | str | None:
    """Upload a video once; return the answer, None without one, or "left" for a client that left.

    On a connection of its own, so that an idle one that the service closes is not taken for a lost answer.
    """
    content, url = soak.videos[name], httpx.URL(soak.served.url)
    start = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="video"; filename="v"\r\n\r\n'.encode()
    body = start + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nConnection: close\r\nX-Request-Id: {request_id}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    try:
        connection, exchange = await asyncio.get_running_loop().create_connection(Exchange, url.host, url.port)
    except OSError:
        return None
    try:
        connection.write(head)
        match kind:
            case "slow":
                size = -(-len(body) // 10)
                for begin in range(0, len(body), size):
                    connection.write(body[begin : begin + size])
                    await asyncio.sleep(UPLOAD_SECONDS / 20)
            case "stalled" | "leaves early":
                connection.write(body[: len(body) // 2])
            case _:
                connection.write(body)
        if kind.startswith("leaves"):
            # Not before the service has begun, so that it must count the request.
            while not exchange.closed.done():
                stage = await stage_of(url, request_id)
                if stage == "upload" if kind == "leaves early" else stage in ("decode", "predict"):
                    return "left"
                await asyncio.sleep(0.02)
        async with asyncio.timeout(_ANSWER_SECONDS):
            await exchange.closed
        return parse(bytes(exchange.received))
    except TimeoutError:
        return Answer(0, f"no answer within {_ANSWER_SECONDS:g} s")
    finally:
        connection.abort()


async def client(soak: Soak, number: int, seed: int) -> None:
    """Upload again and again, a random video each time."""
    generator = random.Random(1000 * seed + number)
    good = [name for name in soak.videos if name.startswith("good")]
    for count in range(10**6):
        while soak.is_paused:
            await asyncio.sleep(_PAUSE_SECONDS)
        if soak.is_over:
            return
        kind = generator.choice(BAD) if generator.random() < BAD_SHARE else "good"
        name = kind if kind in soak.videos else generator.choice(good)
        was_stopping, begin = soak.is_stopping, time.monotonic()
        soak.num_running += 1
        counts = soak.counts
        try:
            outcome = await request(soak, kind, name, f"{number}-{count}")
        finally:
            soak.num_running -= 1
        # A restart waits for all requests, so that each is counted where it was answered.
        assert counts is soak.counts
        if isinstance(outcome, str):
            counts.left += 1
            soak.answers.setdefault(kind, Counter())[outcome] += 1
            continue
        soak.record(kind, name, outcome, was_stopping=was_stopping)
        if kind == "good" and outcome is not None and outcome.status == 200:
            soak.latencies_ms.append(1000 * (time.monotonic() - begin))
        if outcome is None or outcome.status == 503:
            await asyncio.sleep(generator.uniform(1, 4) * _PAUSE_SECONDS)


async def kill_decoders(soak: Soak, seconds: float) -> int:
    """Kill a decoder whenever this time has passed; return how many were killed."""
    num_killed = 0
    await asyncio.sleep(seconds / 2)
    while not soak.is_over:
        while soak.is_stopping:
            await asyncio.sleep(_PAUSE_SECONDS)
        try:
            decoders = soak.served.decoders()
            if decoders:
                decoders[0].kill()
                num_killed += 1
        except psutil.Error:  # it has ended since
            pass
        await asyncio.sleep(seconds)
    return num_killed


async def restart(soak: Soak, when: float, again: Any) -> tuple[Counts, str, int]:
    """Stop the service under load at this time, start another; return the counts of the first, its log and its status."""
    await asyncio.sleep(when - time.monotonic())
    soak.is_stopping = True
    begin = time.monotonic()
    stopping = asyncio.create_task(asyncio.to_thread(soak.served.stop, signal.SIGTERM))
    # New clients come for a while, as a proxy or a person would.
    await asyncio.sleep(1.0)
    soak.is_paused = True
    status = await stopping
    while soak.num_running:
        await asyncio.sleep(_PAUSE_SECONDS)
    log, counts, soak.counts = soak.served.log(), soak.counts, Counts()
    soak.served = await asyncio.to_thread(again)
    soak.until += time.monotonic() - begin
    soak.is_stopping = soak.is_paused = False
    return counts, log, status


async def watch(soak: Soak) -> list[tuple[float, float, int]]:
    """Return the time, the memory in MB, and the process of the service, every second."""
    samples = []
    start = time.monotonic()
    while not soak.is_over:
        if not soak.is_stopping:
            pid, memory = soak.served.process.pid, await asyncio.to_thread(soak.served.memory_mb)
            if not soak.is_stopping:
                samples.append((round(time.monotonic() - start, 2), round(memory, 1), pid))
        await asyncio.sleep(1.0)
    return samples


def counted_by_service(log: str) -> Counter[int]:
    """Return the answers by status that the last stopped service printed."""
    line = re.findall(r"answers to uploads: (.*)", log)[-1]
    return Counter({int(status): int(count) for count, status in re.findall(r"(\d+) (\d{3})", line)})


def compare(clients: Counts, log: str) -> dict[str, Any]:
    """Compare the counts of clients and service. A client that left sees no answer: the service may have sent one."""
    service = counted_by_service(log)
    more = {
        status: service[status] - clients.answers[status] for status in sorted(service.keys() | clients.answers.keys())
    }
    are_equal = min(more.values(), default=0) >= 0 and sum(more.values()) == clients.left
    return {
        "are_equal": are_equal,
        "clients": {str(status): count for status, count in sorted(clients.answers.items())},
        "clients_left": clients.left,
        "clients_without_answer": clients.refused,
        "service": {str(status): count for status, count in sorted(service.items())},
        "answers_to_clients_that_left": {str(status): count for status, count in more.items() if count},
    }


def memory_of(samples: list[tuple[float, float, int]]) -> list[dict[str, Any]]:
    """Return slope, growth and maximum of memory of each process of the service."""
    parts = []
    for pid in dict.fromkeys(pid for *_, pid in samples):
        seconds = [second for second, _, other in samples if other == pid]
        memory = [value for _, value, other in samples if other == pid]
        if len(memory) < 8:
            continue
        parts.append({
            "seconds": seconds[-1] - seconds[0],
            "max_mb": max(memory),
            "slope_mb_per_minute": slope(seconds, memory),
            **growth(memory),
            "memory_mb": memory,
        })  # fmt: skip
    return parts


async def answers_alone(soak: Soak) -> dict[str, Answer]:
    """Upload each video when nothing else is."""
    alone = {}
    for name in soak.videos:
        answer = await request(soak, "good", name, "alone")
        assert isinstance(answer, Answer), f"{name}: {answer}"
        soak.counts.answers[answer.status] += 1
        assert (answer.status == 200) == name.startswith("good"), f"{name}: {answer}"
        alone[name] = answer
    return alone


def make_uploads(folder: Path, *, seconds: float) -> dict[str, bytes]:
    """Return videos of several sizes, and bad ones."""
    sizes = [(240, 320), (320, 240), (240, 240), (180, 320), (240, 320)]
    videos = {
        f"good {number}": make_video(folder / f"{number}.mp4", size=size, seconds=seconds, seed=number).read_bytes()
        for number, size in enumerate(sizes)
    }
    Image.new("RGB", (8000, 16), (90, 120, 40)).save(folder / "wide.png")
    whole = videos["good 0"]
    return {**videos, "wide": (folder / "wide.png").read_bytes(), "truncated": whole[: len(whole) // 2]}


async def run_soak(soak: Soak, options: argparse.Namespace, again: Any) -> dict[str, Any]:
    """Run all clients, signals and measurements; return the result."""
    soak.alone = await answers_alone(soak)
    seconds, start = 60 * options.minutes, time.monotonic()
    soak.until = start + seconds
    (first, first_log, first_status), num_killed, samples, *_ = await asyncio.gather(
        restart(soak, start + seconds / 2, again),
        kill_decoders(soak, seconds / options.kills),
        watch(soak),
        *(client(soak, number, options.seed) for number in range(options.clients)),
    )
    left_after_load = await asyncio.to_thread(soak.served.wait_for_no_files)
    metrics = httpx.get(f"{soak.served.url}/metrics").text
    killed = {
        reason: float(value) for reason, value in re.findall(r'decode_failures_total\{reason="(.*)"\} (.*)', metrics)
    }
    status = await asyncio.to_thread(soak.served.stop)
    return {
        "answers": {kind: dict(sorted(counts.items())) for kind, counts in sorted(soak.answers.items())},
        "num_wrong": len(soak.wrong),
        "wrong": soak.wrong[:20],
        "counts": [compare(first, first_log), compare(soak.counts, soak.served.log())],
        "good_per_second": len(soak.latencies_ms) / seconds,
        "latency_ms": percentiles(soak.latencies_ms) if soak.latencies_ms else {},
        "decoders_killed": num_killed,
        "decode_failures_after_restart": killed,
        "memory": memory_of(samples),
        "files_left_after_load": left_after_load,
        "exit_status": [first_status, status],
        "tracebacks": soak.served.log().count("Traceback"),
    }


def failures(result: dict[str, Any]) -> list[str]:
    """Return what is not as it must be."""
    longest = max(result["memory"], key=lambda part: part["seconds"], default=None)
    checks = {
        f"{result['num_wrong']} wrong answers, for example {result['wrong'][:3]}": result["num_wrong"],
        "counts of service and clients differ": not all(part["are_equal"] for part in result["counts"]),
        "no good answer": not result["latency_ms"],
        "files are left": result["files_left_after_load"] or result["files_left_at_end"],
        f"exit statuses are {result['exit_status']}": result["exit_status"] != [0, 0],
        f"the log has {result['tracebacks']} tracebacks": result["tracebacks"],
        f"memory has grown by {longest['growth']:.1%}" if longest else "": longest
        and longest["seconds"] >= CHECKED_SECONDS
        and longest["growth"] > MAX_GROWTH,
    }
    return [text for text, is_wrong in checks.items() if is_wrong]


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run folder; default random weights of --model")
    parser.add_argument("--model", default="vsn_resnet14_tiny")
    parser.add_argument("--short-side", type=int, default=112)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most 60")
    parser.add_argument(
        "--requests", type=int, default=ServeConfig().max_requests, help="--max-requests of the service"
    )
    parser.add_argument("--video-seconds", type=float, default=3.0)
    parser.add_argument("--kills", type=int, default=8, help="how many decoders are killed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    if not 0 < options.minutes <= 60 or not 1 <= options.requests <= 256 or options.kills < 1:
        parser.error(
            f"--minutes must be in (0, 60], --requests in [1, 256], --kills at least 1; got {options.minutes}, "
            f"{options.requests}, {options.kills}."
        )
    options.clients = int(_CONCURRENCY_FACTOR * options.requests) + 1
    with tempfile.TemporaryDirectory(prefix="vsn-soak-") as folder:
        work, temporary = Path(folder), Path(folder) / "temporary"
        temporary.mkdir()
        run = options.run or make_run(work / "run", model=options.model, short_side=options.short_side)
        limits = ["--max-requests", str(options.requests), "--upload-seconds", str(UPLOAD_SECONDS)]
        served = Served(run, temporary, limits)
        port = httpx.URL(served.url).port
        soak = Soak(served, make_uploads(work, seconds=options.video_seconds))
        try:
            result = asyncio.run(run_soak(soak, options, lambda: Served(run, temporary, limits, port=port or 0)))
        finally:
            soak.served.kill()
        result["files_left_at_end"] = [path.name for path in temporary.rglob("*") if path.name != "log.txt"]
    problems = failures(result)
    config = {
        name: getattr(options, name) for name in ("minutes", "requests", "clients", "video_seconds", "kills", "seed")
    }
    write_json(
        options.out,
        {
            "what": "vsn serve at full concurrency, with bad requests, killed decoders and a restart: benchmarks/soak.py",
            **describe_run(__file__, [*_without_out(given), "--out", f"results/{options.out.name}"]),
            "config": {**config, "model": "RUN" if options.run else options.model, "bad_share": BAD_SHARE},
            "failures": problems,
            **result,
        },
    )
    summary = {name: result[name] for name in ("answers", "counts", "good_per_second", "decoders_killed")}
    print(json.dumps(summary, indent=1))
    for part in result["memory"]:
        print({name: value for name, value in part.items() if name != "memory_mb"})
    if problems:
        raise SystemExit("; ".join(problems))


def _without_out(arguments: list[str]) -> list[str]:
    position = arguments.index("--out")
    return [*arguments[:position], *arguments[position + 2 :]]


if __name__ == "__main__":
    main()
