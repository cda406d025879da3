"""Write the tables of the documentation from results/, recipes/ and the models.

    python docs/scripts/page_tables.py          # writes them into docs/*.md

A table is between `<!-- table NAME -->` and `<!-- end of table -->`, which readers do not see.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from paper_row_tables import notes, rows_of
from paper_rows import ROWS

from vsn.bench.tables import PAPER_TABLE_6
from vsn.config import ModelConfig
from vsn.data.embedded.scenes import LEVELS, group_of
from vsn.data.views import PROTOCOLS
from vsn.models.measure import count_multiply_adds
from vsn.system.numbers import decimal, percent, percent_interval, short_count

ROOT = Path(__file__).parents[2]
SPOT = re.compile(r"(?s)(<!-- table ([\w-]+) -->\n).*?(<!-- end of table -->)")

# Assumptions of the budget in docs/scaling.md, stated there.
VIDEOS = 240_000
TEST_VIDEOS = 20_000
SECONDS, RATE = 10, 25
TERAFLOPS = 20
FLOP_A_VIDEO = 6 * 33e9
EPOCHS = 50
VIDEOS_A_GPU = 8
GPUS = (8, 64, 1024)

# Runs of results/embedded-cpu.json without changed settings.
PLAIN_RUNS = ("name=tsn_resnet26_thin", "name=tsm_resnet26_thin", "recipe")

PAPER_RECIPES = {
    "2": (
        "paper-something-v1-r50",
        "paper-something-v1-flow-8x5-r50",
        "paper-something-v1-r101",
        "paper-something-v1-flow-8x5-r101",
        "paper-something-v1-r50-tsm",
        "paper-something-v1-r50-tsn",
        "paper-something-v2-r50",
        "paper-something-v2-r101",
        "paper-something-v2-flow-8x5-r50",
        "paper-something-v2-flow-8x5-r101",
        "paper-something-v2-r50-tsm",
        "paper-something-v2-r50-tsn",
    ),
    "3": ("paper-kinetics-r50", "paper-kinetics-r101", "paper-kinetics-flow-8x5-r101"),
    "4": ("paper-moments-r50", "paper-moments-r101", "paper-moments-r50-tsm", "paper-moments-r50-tsn"),
    "5": tuple(
        f"paper-{data}-flow-8x{length}-{depth}{end}"
        for data in ("kinetics", "something-v1")
        for depth in ("r50", "r101")
        for length in (1, 5)
        for end in ("-tsn", "")
    ),
    "7": (
        "paper-something-v1-r50-tsn",
        "ablation-headtail-r50",
        "paper-something-v1-r50",
        "paper-something-v1-r101-tsn",
        "ablation-headtail-r101",
        "paper-something-v1-r101",
        "paper-kinetics-r50-tsn",
        "ablation-kinetics-headtail-r50",
        "paper-kinetics-r50",
        "paper-kinetics-r101-tsn",
        "ablation-kinetics-headtail-r101",
        "paper-kinetics-r101",
    ),
    "8": (
        "paper-something-v1-r50-tsn",
        "ablation-blocks-1",
        "ablation-blocks-2",
        "ablation-blocks-3",
        "ablation-shuffle-only",
        "paper-something-v1-r50",
        "paper-kinetics-r50-tsn",
        "ablation-kinetics-blocks-1",
        "ablation-kinetics-blocks-2",
        "ablation-kinetics-blocks-3",
        "ablation-kinetics-shuffle-only",
        "paper-kinetics-r50",
    ),
    "9": (
        "paper-something-v1-r50-tsn",
        "ablation-shift-only",
        "ablation-shuffle-only",
        "paper-something-v1-r50",
        "paper-kinetics-r50-tsn",
        "paper-kinetics-r50-tsm",
        "ablation-kinetics-shuffle-only",
        "paper-kinetics-r50",
    ),
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def header_of(recipe: str) -> dict[str, str]:
    """Parse the header of a recipe: title, command, hardware, hours, accuracy, source."""
    text = (ROOT / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
    block = text.split("\n\n", 1)[0]
    header = {"title": block.splitlines()[0].lstrip("# ")}
    for entry in re.finditer(r"(?m)^# (command|hardware|hours|accuracy|source) +(.+(?:\n# {8,}.+)*)", block):
        header[entry[1]] = " ".join(entry[2].replace("\n#", " ").split())
    return header


def paper_table(number: str) -> str:
    """List the recipes of one table of the paper: content, the paper's accuracy, estimated hours."""
    rows = []
    for name in PAPER_RECIPES[number]:
        header = header_of(name)
        hours = re.search(r"(\d+) h if the GPUs", header["hours"])
        like = re.search(r"about those of ([\w-]+)", header["hours"])
        on_paper = hours[1] if hours else re.search(r"(\d+) h if", header_of(like[1])["hours"])[1]
        figure = header["accuracy"].replace("the placements below", "its placements")
        rows.append((f"`{name}`", header["title"], figure, on_paper))
    return table(("recipe", "trains", "the paper's figure", "hours, on paper"), rows)


def demo_table() -> str:
    """Return the measured results of the demo's three models."""
    rows = [
        (
            row["model"],
            short_count(row["params"]),
            short_count(row["multiply_adds"]),
            percent(row["top1"]),
            percent_interval(row["top1_interval"]),
            f"{row['latency_ratio']:.2f}",
        )
        for row in _read("demo-cpu.json")["rows"]
    ]
    return table(("model", "parameters", "multiply-adds", "top-1", "95% interval", "latency to TSN"), rows)


def quick_table() -> str:
    """Return the accuracy of the quick demo's three models, with frames in order and shuffled."""
    rows = [
        (row["model"], percent(row["top1"]), percent(row["top1_shuffled"]))
        for row in _read("demo-quick-cpu.json")["rows"]
    ]
    return table(("model", "top-1", "frames shuffled"), rows)


def latency_table() -> str:
    """Return the measured costs of full-sized models, and their accuracy in the paper."""
    rows = [
        (
            f"`{row['label']}`",
            short_count(row["parameters"]),
            short_count(row["multiply_adds_of_video"]),
            f"{row['latency']['ratio']:.2f}",
            f"{PAPER_TABLE_6[row['label']][2]}%",
        )
        for row in _read("table6-latency-cpu.json")["rows"]
    ]
    head = ("model", "parameters", "multiply-adds a video", "latency to TSN-R50", "top-1, the paper's Table 6")
    return table(head, rows)


def networks_table() -> str:
    """Return the measured latency of every network of the paper's Tables 2 and 6, fastest first."""
    rows = sorted(_read("table2-latency-cpu.json")["rows"], key=lambda row: float(row["latency"]["ratio"]))
    lines = []
    for row in rows:
        clips = "" if row["num_clips"] == 1 else f", {row['num_clips']} clips"
        lines.append(
            (
                f"`{row['model']}`, T = {row['num_frames']}{clips}",
                short_count(row["parameters"]),
                short_count(row["multiply_adds_of_video"]),
                f"{row['latency']['median']:.0f}",
                f"{row['latency']['ratio']:.2f}",
            )
        )
    return table(("network", "parameters", "multiply-adds a video", "ms", "to TSN-R50"), lines)


def peer_rows() -> list[dict[str, Any]]:
    """Summarize the models trained on the embedded data set, best first: top-1 over seeds, costs."""
    runs = [run for run in _read("embedded-cpu.json")["runs"] if run["name"] in PLAIN_RUNS]
    runs += _read("peers-embedded-cpu.json")["runs"]
    latency = {row["label"].split("@")[0]: row["latency"]["ratio"] for row in _read("peers-latency-cpu.json")["rows"]}
    rows = []
    for model in dict.fromkeys(run["model"] for run in runs):
        of_model = [run for run in runs if run["model"] == model]
        shares = [run["forward"]["top1"] for run in of_model]
        rows.append(
            {
                "model": model,
                "top1": statistics.fmean(shares),
                "sd": statistics.stdev(shares) if len(shares) > 1 else None,
                "seeds": len(shares),
                "parameters": of_model[0]["parameters"],
                "multiply_adds": of_model[0]["multiply_adds"],
                "latency": latency[model],
            }
        )
    return sorted(rows, key=lambda row: -row["top1"])


def peer_table() -> str:
    """Return the results of every model trained on the embedded data set, at the demo's size and length."""
    rows = [
        (
            f"`{row['model']}`",
            percent(row["top1"]),
            "" if row["sd"] is None else decimal(100 * row["sd"]),
            str(row["seeds"]),
            short_count(row["parameters"]),
            short_count(row["multiply_adds"]),
            f"{row['latency']:.2f}",
        )
        for row in peer_rows()
    ]
    return table(("model", "top-1", "sd", "seeds", "parameters", "multiply-adds", "latency to TSN"), rows)


def protocol_table() -> str:
    """Count the multiply-adds of a video in each protocol: VSN-R50, T = 8, frames of 340x256."""
    sizes = {"whole": (256, 340), "center": 224, "three": 256, "ten": 224}
    costs = {}
    for name, plan in PROTOCOLS.items():
        model = "tsn_resnet50" if plan.num_frames else "vsn_resnet50"
        config = ModelConfig(name=model, num_classes=400, num_frames=plan.num_frames or 8)
        costs[name] = count_multiply_adds(config, size=sizes[plan.crops]) * plan.num_views
    rows = [
        (f"`{name}`", str(PROTOCOLS[name].num_views), short_count(cost), f"{cost / costs['fcn']:.1f}")
        for name, cost in costs.items()
    ]
    return table(("protocol", "views", "multiply-adds a video", "to `fcn`"), rows)


def budget() -> dict[str, Any]:
    """Compute the figures of docs/scaling.md from measured ones."""
    loading = _read("loading-cpu.json")
    speed = {row["form"]: row["median"] for row in loading["rows"] if row["workers"] == 1}
    frame_bytes = {form: size / loading["data"]["num_frames"] for form, size in loading["data"]["bytes"].items()}
    gestures = _read("loading-memory-cpu.json")["data_set"]
    frames = (VIDEOS + TEST_VIDEOS) * SECONDS * RATE
    return {
        "speed": speed,
        "frames": frames,
        "packed_terabytes": frames * frame_bytes["packed"] / 1e12,
        "gestures_terabytes": frames * gestures["bytes_out"] / gestures["frames"] / 1e12,
        "clip_kilobytes": 8 * frame_bytes["packed"] / 1e3,
        "videos_a_second": TERAFLOPS * 1e12 / FLOP_A_VIDEO,
    }


def storage_table() -> str:
    """Estimate the storage of Kinetics-400 from measured bytes per frame."""
    known = budget()
    generated, real = known["packed_terabytes"], known["gestures_terabytes"]
    rows = [
        ("340x256, generated videos", f"{generated * 1e12 / known['frames'] / 1e3:.1f} kB", f"{generated:.1f} TB"),
        ("320x240, real gesture clips", f"{real * 1e12 / known['frames'] / 1e3:.1f} kB", f"{real:.1f} TB"),
    ]
    return table(("packed frames of", "a frame, measured", "Kinetics-400, on paper"), rows)


def scaling_table() -> str:
    """Estimate the loading and GPU budget of VSN-R50 on Kinetics-400."""
    known = budget()
    rows = []
    for gpus in GPUS:
        speed = gpus * known["videos_a_second"]
        steps = VIDEOS // (gpus * VIDEOS_A_GPU)
        minutes = VIDEOS * EPOCHS / speed / 60
        rows.append(
            (
                f"{gpus:,}",
                f"{speed:,.0f}",
                f"{speed / known['speed']['packed']:,.0f}",
                f"{speed / known['speed']['h264-12']:,.0f}",
                f"{speed * known['clip_kilobytes'] / 1e6:,.2f} GB/s",
                f"{gpus * VIDEOS_A_GPU:,}",
                f"{steps:,}",
                f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min",
            )
        )
    head = (
        "GPUs",
        "videos a second",
        "cores, packed",
        "cores, H.264",
        "read, packed",
        "videos a step",
        "steps an epoch",
        f"{EPOCHS} epochs",
    )
    return table(head, rows)


def _read(name: str) -> Any:
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


INTERVAL_METHODS = {
    "share": "mid-P",
    "share, reversed copies": "mid-P of the independent videos",
    "share, groups": "mid-P of the independent videos, Student's t",
    "share, percentile bootstrap of groups (not printed)": "percentile bootstrap",
    "share, groups of unequal sizes": "mid-P of the independent videos, Student's t",
    "difference": "Tango's score",
    "difference, reversed copies": "Tango's score of the independent videos",
    "difference, groups of unequal sizes": "Tango's score of the independent videos, Student's t",
    "gain of a fusion over the best of two": "Tango's score",
    "mean-class difference": "Tango's score of the independent videos",
    "share that depends on order": "Fieller, with half a video per outcome",
    "precision of the threshold holds": "one-sided mid-P at each threshold",
    "median ratio of times": "ordered rounds",
    "mean average precision, percentile bootstrap (not printed)": "percentile bootstrap",
}


def interval_table() -> str:
    """Return the lowest, median and highest simulated coverage of each kind of interval."""
    rows = _read("interval-coverage-cpu.json")["rows"]
    lines = []
    for kind, method in INTERVAL_METHODS.items():
        cases = [row for row in rows if row["interval"] == kind]
        values = [row["coverage"] for row in cases]
        count = (
            f"{len(cases)}, exact" if cases[0]["draws"] == "exact" else f"{len(cases)} of {cases[0]['draws']:,} draws"
        )
        figures = (min(values), statistics.median(values), max(values))
        lines.append((kind, method, count, *(percent(value) for value in figures)))
    return table(("interval", "method", "cases", "lowest", "median", "highest"), lines)


def paper_rows_table(number: str) -> str:
    """Return every row of a table of the paper, and the notes of its rows."""
    head, *rows = rows_of(number)
    listed = notes(number) if number in ROWS else ""
    return table(head, rows) + (f"\n\n{listed}" if listed else "")


def near_copies_table() -> str:
    """Return the share of copies of each kind that the doctor finds, and how many of its pairs are right."""
    rows = _read("near-copies-cpu.json")["rows"]
    lines = [(kind, *(percent(row["recall_by_copy"][kind], 0) for row in rows)) for kind in rows[0]["recall_by_copy"]]
    lines += [
        ("all", *(percent(row["recall"], 0) for row in rows)),
        ("all, of videos in which enough moves", *(percent(row["recall_moving"], 0) for row in rows)),
        ("pairs that are right, of those found", *(f"{row['num_right']} of {row['num_found']}" for row in rows)),
    ]
    heads = (f"{row['data']}, {row['num_originals']} videos" for row in rows)
    return table(("copy", *heads), lines)


RUNTIMES = {
    "torch": "PyTorch, eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch, XNNPACK",
    "litert": "LiteRT, XNNPACK",
}


def edge_table() -> str:
    """Return the latency of VSN-R50 in every runtime, and its ratio to TSN's there."""
    rows = _read("edge-latency-cpu.json")["rows"]
    lines = []
    for runtime, name in RUNTIMES.items():
        latency = {row["model"].split("_")[0]: row["latency"] for row in rows if row["runtime"] == runtime}
        ratio = latency["vsn"]
        interval = " to ".join(f"{bound:.2f}" for bound in ratio["interval"])
        lines.append(
            (name, *(f"{latency[kind]['median']:.0f}" for kind in ("tsn", "vsn")), f"{ratio['ratio']:.2f}", interval)
        )
    return table(("runtime", "TSN, ms", "VSN, ms", "VSN to TSN", "95% interval"), lines)


def browser_table() -> str:
    """Return the latency of the page of an export in Chromium, beside ONNX Runtime's."""
    rows = [
        (
            f"`{row['model']}`",
            str(row["threads"]),
            *(f"{row[f'{part}_ms']['median']:.0f}" for part in ("decoding", "network", "onnxruntime")),
            f"{row['to_onnxruntime']['ratio']:.1f}",
        )
        for row in _read("browser-cpu.json")["rows"]
    ]
    return table(("network", "threads", "decoding, ms", "wasm, ms", "ONNX Runtime, ms", "wasm to it"), rows)


def folds_table(file: str) -> str:
    """Return the accuracy of folds, over seeds; rows of the file are MODEL-SEED."""
    runs = _read(file)["rows"]
    seeds = sorted({name.split("-")[1] for name in runs})
    lines = []
    for model in dict.fromkeys(name.split("-")[0] for name in runs):
        found = [runs[f"{model}-{seed}"] for seed in seeds if f"{model}-{seed}" in runs]
        shown = [f"{percent(run['top1'])} ({percent_interval(run['top1_interval'])})" for run in found]
        shown += [""] * (len(seeds) - len(found))
        lines.append((model.upper(), *shown, percent(statistics.fmean(run["top1"] for run in found))))
    if len(seeds) == 1:
        return table(("model", f"seed {seeds[0]}"), [line[:2] for line in lines])
    return table(("model", *(f"seed {seed}" for seed in seeds), "mean"), lines)


HARD_RUNS = {
    "name=tsn_resnet26_slim": "TSN",
    "name=tsm_resnet26_slim": "shift in every block (TSM)",
    "shift=false": "shuffle in every stage",
    "recipe": "shuffle in every stage, shift elsewhere (VSN)",
    "block=headtail": "headtail blocks, shift elsewhere",
}
"""Name of a run on the hard level -> what it is; shuffles in some stages are named by these."""


def hard_runs(file: str = "embedded-hard-cpu.json") -> dict[str, list[dict[str, Any]]]:
    """Return what a network of the hard level is -> its runs, one for each seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in _read(file)["runs"]:
        places = ", ".join(run["settings"].get("model.places", []))
        found.setdefault(HARD_RUNS.get(run["name"], f"shuffle in {places}"), []).append(run)
    names = list(HARD_RUNS.values())

    def position(name: str) -> tuple[int, int, str]:
        # Shuffles in some stages come after TSM, fewer stages first.
        return (names.index(name), 0, "") if name in names else (1, 1 + name.count(","), name)

    return {name: found[name] for name in sorted(found, key=position)}


def hard_table(file: str = "embedded-hard-cpu.json") -> str:
    """Return top-1 on each group of the hard level, means over seeds."""
    groups = LEVELS["hard"][0]
    lines = []
    for words, runs in hard_runs(file).items():
        found = [run["forward"] for run in runs]
        of_group = (
            statistics.fmean(
                share for run in found for label, share in run["per_class"].items() if group_of(label) == group
            )
            for group in groups
        )
        whole = statistics.fmean(run["top1"] for run in found)
        seeds = ", ".join(str(run["seed"]) for run in runs)
        lines.append((words, percent(whole), *(percent(share, 0) for share in of_group), seeds))
    return table(("network", "top-1", *groups, "seeds"), lines)


def forms_table() -> str:
    """Return the latency of the forms of the shift in exported files, to a network without it."""
    runtimes = _read("export-forms-cpu.json")["runtimes"]
    names = [name for name in runtimes["onnxruntime fp32"] if name != "none"]
    lines = [
        (
            name,
            *(
                f"{figures[name]['to_none']['ratio']:.2f}" if name in figures else "fails"
                for figures in runtimes.values()
            ),
        )
        for name in names
    ]
    return table(("form", *(f"{name}, to no shift" for name in runtimes)), lines)


def training_speed_table() -> str:
    """Return the videos a second of training steps, to those of the bare network."""
    rows = _read("training-speed-cpu.json")["rows"]
    lines = []
    for name in dict.fromkeys(row["model"] for row in rows if row["model"] != "bare"):
        speeds = [row["speed_to_bare"] for row in rows if row["model"] == name]
        figures = [
            f"{speed['ratio']:.2f} ({' to '.join(f'{bound:.2f}' for bound in speed['interval'])})" for speed in speeds
        ]
        lines.append((name, *figures))
    return table(
        ("network", *(f"{form}, speed to bare" for form in dict.fromkeys(row["precision"] for row in rows))), lines
    )


TABLES: dict[str, Callable[[], str]] = {
    "browser": browser_table,
    "demo": demo_table,
    "demo-quick": quick_table,
    "edge": edge_table,
    "fights": partial(folds_table, "fights-folds-cpu.json"),
    "fights-random": partial(folds_table, "fights-random-cpu.json"),
    "gestures-people": partial(folds_table, "gestures-people-cpu.json"),
    "forms": forms_table,
    "hard": hard_table,
    "hard-long": partial(hard_table, "embedded-hard-long-cpu.json"),
    "intervals": interval_table,
    "latency": latency_table,
    "near-copies": near_copies_table,
    "networks": networks_table,
    "peers": peer_table,
    "protocol-costs": protocol_table,
    "scaling": scaling_table,
    "storage": storage_table,
    "training-speed": training_speed_table,
    **{f"rows-{number}": lambda number=number: paper_rows_table(number) for number in ("1", *ROWS)},
    **{f"paper-{number}": lambda number=number: paper_table(number) for number in PAPER_RECIPES},
}


def filled(page: str) -> str:
    """Return a page with its tables regenerated."""
    return SPOT.sub(lambda spot: f"{spot[1]}\n{TABLES[spot[2]]()}\n\n{spot[3]}", page)


if __name__ == "__main__":
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if SPOT.search(text):
            path.write_text(filled(text), encoding="utf-8")
