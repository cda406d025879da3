"""Compare the speed of loading clips: PIL as in 2019, and our reader on JPEG folders, H.264 and packed video.

    python benchmarks/loading.py WORK results/NAME.json [--profile] [--memory] [--videos PATH]
    python benchmarks/loading.py WORK results/NAME.json --num-videos 6 --frames 900 1100  # long videos

Videos of moving texture, 340x256 pixels, are generated into WORK once; use another WORK for other lengths. Each round
measures every form with every number of workers in random order; a rate counts from the first batch to the last. All files
are in the page cache, so the CPU is the limit. --profile adds the time by stage, --memory the memory of the workers over
10,000 clips, --videos the cost and gain of packing a data set (class folders, or one CSV file).
"""

from __future__ import annotations

import argparse
import cProfile
import csv
import itertools
import multiprocessing
import os
import platform
import pstats
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from loading_baseline import baseline_loader
from loading_videos import HEIGHT, make_videos
from vsn.config import ClipSpec, DataConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.dataset import VideoDataset
from vsn.data.loader import collate, make_loader
from vsn.data.packing.pack import pack_dataset
from vsn.data.readers import read_records
from vsn.data.records import RecordSet
from vsn.data.video import open_video
from vsn.runs.metadata import versions
from vsn.system.files import write_json

NUM_FRAMES, BATCH = 8, 8
FORMS = {
    "pil": "JPEG folders, PIL as in 2019",
    "jpeg": "JPEG folders",
    "h264-12": "H.264, a key frame every 12 frames",
    "h264-250": "H.264, a key frame every 250 frames",
    "packed": "packed",
}


# --- loaders ---------------------------------------------------------------------------------------


def dataset_of(config: DataConfig, *, num_clips: int, seed: int) -> VideoDataset:
    """Return training clips, uint8, 8 frames, 224x224, of the training split, repeated to `num_clips`."""
    records = read_records(config, "train")
    repeated = tuple(itertools.islice(itertools.cycle(records.records), num_clips))
    return VideoDataset(
        RecordSet(repeated, records.classes),
        Recipe(
            clip=ClipSpec(short_side=HEIGHT),
            data=DataConfig(flip="random"),
            model=ModelConfig(num_frames=NUM_FRAMES),
            train=TrainConfig(seed=seed),
        ),
        train=True,
    )


def batches(work: Path, form: str, *, num_workers: int, num_clips: int, seed: int) -> Iterable[Any]:
    """Return the loader of one form."""
    if form == "pil":
        random.seed(seed)
        with (work / "jpeg/videos.csv").open(newline="") as file:
            rows = [(work / "jpeg" / row["path"], "ab".index(row["label"])) for row in csv.DictReader(file)]
        videos = [(folder, len(os.listdir(folder)), label) for folder, label in rows]
        repeated = list(itertools.islice(itertools.cycle(videos), num_clips))
        return baseline_loader(repeated, num_frames=NUM_FRAMES, batch_size=BATCH, num_workers=num_workers)
    dataset = dataset_of(DataConfig(root=str(work / form), source="csv"), num_clips=num_clips, seed=seed)
    return make_loader(dataset, batch_size=BATCH, num_workers=num_workers, shuffle=True, seed=seed)


def rate(loader: Iterable[Any], seconds: float, *, num_workers: int) -> float:
    """Measure clips per second after the first batch, for these seconds and equally many batches per worker."""
    num_batches = 0
    with closing(_generator(loader)) as loading:
        next(loading)
        start = time.perf_counter()
        for _ in loading:
            num_batches += 1
            if time.perf_counter() - start > seconds and num_batches % max(1, num_workers) == 0:
                break
        return num_batches * BATCH / (time.perf_counter() - start)


def _generator(loader: Iterable[Any]) -> Iterator[Any]:
    yield from loader


def measure_rates(
    work: Path, *, forms: list[str], workers: list[int], rounds: int, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Measure every form with every number of workers, `rounds` times, interleaved."""
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in itertools.product(forms, workers)}
    for number in range(rounds):
        order = list(rates)
        random.Random(seed + number).shuffle(order)
        for form, num_workers in order:
            loader = batches(work, form, num_workers=num_workers, num_clips=BATCH * 5000, seed=seed + number)
            rates[form, num_workers].append(rate(loader, seconds, num_workers=num_workers))
            print(
                f"round {number + 1}, {form}, {num_workers} workers: {rates[form, num_workers][-1]:.1f}/s",
                flush=True,
            )
    medians = {key: statistics.median(values) for key, values in rates.items()}
    return [
        {
            "form": form,
            "what": FORMS[form],
            "workers": num_workers,
            "clips_per_second": [round(value, 2) for value in values],
            "median": round(medians[form, num_workers], 2),
            "times_pil": round(medians[form, num_workers] / medians["pil", num_workers], 2) if "pil" in forms else None,
        }
        for (form, num_workers), values in rates.items()
    ]


# --- profile, memory, packing ----------------------------------------------------------

STAGES = {  # stage -> substrings of the functions whose own time counts
    "decoding JPEG": ("_decode_turbo", "_decode_pillow", "'decode' of 'ImagingDecoder'"),
    "decoding H.264": (
        "'decode' of 'av.video",
        "'decode' of 'av.codec",
        "'demux'",
        "_packets",
        "container.core.open",
    ),
    "conversion to RGB": ("'reformat'", "'to_ndarray'", "rot90"),
    "resizing crops": ("_upsample_bilinear2d_aa", "interpolate"),
    "copies of pixels": ("'contiguous'", "stack", "'flip'", "'copy_'", "numpy.empty"),
    "checksums": ("crc32",),
    "files": ("posix.", "io.open", "'read' of", "'readinto'", "'__exit__' of '_io", "'__enter__' of '_io"),
}


def profile(work: Path, form: str, *, num_clips: int, seed: int) -> dict[str, Any]:
    """Profile loading in one process: milliseconds per clip by stage, and the top functions."""
    dataset = dataset_of(DataConfig(root=str(work / form), source="csv"), num_clips=num_clips, seed=seed)
    collate([dataset[index] for index in range(BATCH)])
    start = time.perf_counter()
    for first in range(0, num_clips, BATCH):
        collate([dataset[(1, index)] for index in range(first, first + BATCH)])
    whole = time.perf_counter() - start
    profiler = cProfile.Profile()
    profiler.enable()
    for first in range(0, num_clips, BATCH):
        collate([dataset[(2, index)] for index in range(first, first + BATCH)])
    profiler.disable()
    own = {
        f"{Path(file).name}:{name}" if file != "~" else name: values[2]
        for (file, _, name), values in pstats.Stats(profiler).stats.items()
    }
    total = sum(own.values())
    stages = dict.fromkeys((*STAGES, "Python and the rest"), 0.0)
    for name, seconds in own.items():
        stage = next((s for s, parts in STAGES.items() if any(part in name for part in parts)), "Python and the rest")
        stages[stage] += seconds
    scale = 1000 * whole / num_clips / total  # scaled to the time without the profiler, which slows Python down
    return {
        "form": form,
        "milliseconds_a_clip": round(1000 * whole / num_clips, 2),
        "stages": {name: round(seconds * scale, 3) for name, seconds in stages.items()},
        "functions": {name: round(own[name] * scale, 3) for name in sorted(own, key=lambda name: -own[name])[:15]},
    }


def memory(work: Path, form: str, *, num_clips: int, num_workers: int, seed: int) -> dict[str, Any]:
    """Record the memory of the workers in MB at 21 points of a long epoch."""
    others = set(multiprocessing.active_children())
    seen, every = [], max(1, num_clips // BATCH // 20)
    for number, _ in enumerate(batches(work, form, num_workers=num_workers, num_clips=num_clips, seed=seed)):
        if number % every == 0:
            workers = sorted(set(multiprocessing.active_children()) - others, key=lambda worker: worker.pid)
            seen.append({"clips": number * BATCH, "workers": [resident(worker.pid) for worker in workers]})
    third = len(seen) // 3
    early, late = (
        statistics.mean(worker["private"] for point in part for worker in point["workers"])
        for part in (seen[third : 2 * third], seen[2 * third : -1])
    )
    return {
        "form": form,
        "growth_of_private_mb": round(late - early, 1),
        "private_mb": round(late, 1),
        "points": seen,
    }


def resident(pid: int | None) -> dict[str, float]:
    """Return resident and anonymous (private) memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {
        name: int(value.split()[0]) / 1024
        for name, _, value in (line.partition(":") for line in lines)
        if "kB" in value
    }
    return {"resident": round(values["VmRSS"], 1), "private": round(values["RssAnon"], 1)}


def pack_data_set(root: Path, work: Path, *, workers: list[int], seconds: float, seed: int) -> dict[str, Any]:
    """Pack a data set; return time, disk space, and the speed of loading both forms."""
    source = "csv" if any(root.glob("*.csv")) else "folder"
    config, out = DataConfig(root=str(root), source=source), work / f"packed-{root.resolve().name}"
    summary = pack_dataset(config, out)
    packed = replace(config, root=str(out), source="csv", annotations="")
    rates = [
        {
            "form": name,
            "workers": num_workers,
            "clips_per_second": round(rate(loader, seconds, num_workers=num_workers), 2),
        }
        for num_workers in workers
        for name, its_config in (("original", config), ("packed", packed))
        for loader in [
            make_loader(
                dataset_of(its_config, num_clips=BATCH * 5000, seed=seed),
                batch_size=BATCH,
                num_workers=num_workers,
                shuffle=True,
            )
        ]
    ]
    first = read_records(config, "train").records[0]
    return {
        "videos": summary.num_videos,
        "frames": summary.num_frames,
        "size": [open_video(first.path).metadata.height, open_video(first.path).metadata.width],
        "seconds": round(summary.seconds, 1) if summary.num_written == summary.num_shards else None,
        "bytes_in": summary.bytes_in,
        "bytes_out": summary.bytes_out,
        "rates": rates,
    }


# --- main ------------------------------------------------------------------------------------------


def hardware() -> dict[str, Any]:
    return {
        **versions(),
        "pillow": version("pillow"),
        "simplejpeg": version("simplejpeg"),
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
    }


def load_average() -> list[float]:
    """Return the load average over 1, 5 and 15 minutes, to show what else the machine did."""
    return [round(value, 2) for value in os.getloadavg()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--num-videos", type=int, default=60)
    parser.add_argument("--frames", type=int, nargs=2, default=(100, 300), metavar=("MIN", "MAX"))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-clips", type=int, default=10_000)
    parser.add_argument("--videos", type=Path, help="a data set to pack: class folders, or one CSV file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = [Path(value).name if value == str(options.videos) else value for value in sys.argv[3:]]
    command = " ".join(["python benchmarks/loading.py WORK", options.output.name, *given])
    facts: dict[str, Any] = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "versions": hardware(),
        "load_average": {"before": load_average()},
    }
    facts["data"] = make_videos(
        options.work, num_videos=options.num_videos, frames=tuple(options.frames), seed=options.seed
    )
    common = {"seed": options.seed}
    parts: list[tuple[str, Callable[[], Any]]] = [
        (
            "rows",
            lambda: measure_rates(
                options.work,
                forms=options.forms,
                workers=options.workers,
                rounds=options.rounds,
                seconds=options.seconds,
                **common,
            ),
        )
    ]
    ours = [form for form in options.forms if form != "pil"]
    if options.profile:
        parts.append(("profile", lambda: [profile(options.work, form, num_clips=400, **common) for form in ours]))
    if options.memory:
        most = max(options.workers)
        parts.append(
            (
                "memory",
                lambda: [
                    memory(options.work, form, num_clips=options.memory_clips, num_workers=most, **common)
                    for form in ours
                ],
            )
        )
    if options.videos:
        parts.append(
            (
                "data_set",
                lambda: pack_data_set(
                    options.videos, options.work, workers=options.workers, seconds=options.seconds, **common
                ),
            )
        )
    for name, measure in parts:
        facts[name] = measure()
        facts["load_average"][f"after {name}"] = load_average()
        write_json(options.output, facts)  # after each part, so that an interrupted run keeps what it has
    for row in facts["rows"]:
        print(f"{row['what']:<40} {row['workers']} workers {row['median']:8.1f} clips/s  x{row['times_pil']}")


if __name__ == "__main__":
    main()
