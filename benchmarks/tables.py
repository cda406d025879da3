"""Print the tables of results/ as Markdown.

python benchmarks/tables.py results/gestures-arrow-cpu.json
python benchmarks/tables.py results/loading-cpu.json
python benchmarks/tables.py results/two-streams-cpu.json
python benchmarks/tables.py results/stream-cpu.json
python benchmarks/tables.py results/export-parity-cpu.json
python benchmarks/tables.py results/cpu-inference.json
python benchmarks/tables.py results/ops-cpu.json
python benchmarks/tables.py results/ops-networks-cpu.json
python benchmarks/tables.py results/timelines-gestures-cpu.json
python benchmarks/tables.py results/export-cpu.json
python benchmarks/tables.py results/serve-load-cpu.json
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def runs_table(runs: list[dict[str, Any]]) -> str:
    """Format the output of `collect.py`: per run top-1 with its 95% interval, and with frames shuffled."""
    lines = [_head("run", "epochs", "top-1", "95% interval", "frames shuffled")]
    for run in runs:
        forward, shuffled = (next(t for t in run["test"] if t["order"] == order) for order in ("forward", "shuffled"))
        low, high = forward["top1_interval"]
        lines.append(
            f"| {run['run']} | {len(run['metrics'])} | {forward['top1']:.1%} | {low:.1%} to {high:.1%} | "
            f"{shuffled['top1']:.1%} |"
        )
    return "\n".join(lines)


def loading_table(rows: list[dict[str, Any]]) -> str:
    """Format the output of `loading.py`: per form of video, clips per second and the ratio to PIL."""
    names = {
        "pil": "JPEG folders, PIL as in 2019",
        "jpeg": "JPEG folders",
        "h264-12": "H.264, a key frame every 12",
        "h264-250": "H.264, a key frame every 250",
        "packed": "packed",
    }
    row_of = {(row["form"], row["workers"]): row for row in rows}

    def speed(row: dict[str, Any]) -> str:
        return f"{row['median']:.{0 if row['median'] >= 10 else 1}f} | {row['times_pil']:.2f}"

    lines = [_head("videos are", "1 worker", "to PIL", "2 workers", "to PIL")]
    for form, name in names.items():
        lines.append(f"| {name} | {speed(row_of[form, 1])} | {speed(row_of[form, 2])} |")
    return "\n".join(lines)


def latency_table(rows: list[dict[str, Any]]) -> str:
    """Format the latency of models, from the output of `vsn bench`."""
    lines = [_head("model", "parameters", "multiply-adds", "ms", "to the baseline", "95% interval")]
    for row in rows:
        latency = row["latency"]
        low, high = latency["interval"]
        lines.append(
            f"| {row['label']} | {row['parameters'] / 1e6:.1f}M | {row['multiply_adds_of_video'] / 1e9:.1f}G | "
            f"{latency['median']:.0f} | {latency['ratio']:.2f} | {low:.2f} to {high:.2f} |"
        )
    return "\n".join(lines)


def throughput_table(rows: list[dict[str, Any]]) -> str:
    """Format the throughput of models, from the output of `vsn bench`."""
    lines = [_head("model", "videos a second", "to the baseline", "95% interval")]
    for row in rows:
        speed = row["throughput"]
        low, high = speed["interval"]
        lines.append(f"| {row['label']} | {speed['median']:.2f} | {speed['ratio']:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def streams_table(pairs: list[dict[str, Any]]) -> str:
    """Format the output of `two_streams.py` like the paper's Table 2: per stream, and fused."""
    lines = [_head("data", "stream", "frames", "parameters", "multiply-adds", "top-1", "95% interval", "gain")]
    for pair in pairs:
        report = pair["report"]
        names = [*map(_stream_name, pair["streams"]), "fused"]
        settings = [pair["data"], *([pair["protocol"]] if "protocol" in pair else [])]
        low, high = (f"{100 * value:+.1f}" for value in report["gain_interval"])
        gain = f"{100 * report['gain']:+.1f} ({low} to {high}) over {report['best_single']}"
        for name, row in zip(names, (*report["inputs"], report["fused"]), strict=True):
            interval = " to ".join(f"{value:.1%}" for value in row["top1_interval"])
            lines.append(
                f"| {', '.join(settings)}, seed {', '.join(map(str, pair['seeds']))} | {name} | {row['frames']} | "
                f"{row['parameters'] / 1e6:.2f}M | {row['multiply_adds'] / 1e9:.3g}G | {row['top1']:.1%} | {interval} | "
                f"{gain if name == 'fused' else ''} |"
            )
    return "\n".join(lines)


def ensembles_table(pairs: list[dict[str, Any]]) -> str:
    """Format pairs of `two_streams.py` by the seed of their first run: frames with flow, beside frames with other frames."""
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for pair in pairs:
        seed = pair["streams"][0]["recipe"]["train"]["seed"]
        by_seed.setdefault(seed, {})[pair["streams"][1]["recipe"]["model"]["modality"]] = pair["report"]
    lines = [
        _head("seed", "RGB", "flow", "RGB and flow", "gain over RGB", "RGB and RGB of the next seed", "gain over RGB")
    ]
    rows = []
    for seed, reports in sorted(by_seed.items()):
        rgb, flow = (row["top1"] for row in reports["flow"]["inputs"])
        both, twice = (reports[modality]["fused"]["top1"] for modality in ("flow", "rgb"))
        rows.append((rgb, flow, both, both - rgb, twice, twice - rgb))
        lines.append(_ensemble_row(str(seed), rows[-1]))
    return "\n".join([*lines, _ensemble_row("mean", [statistics.fmean(column) for column in zip(*rows, strict=True)])])


def _ensemble_row(name: str, values: Sequence[float]) -> str:
    rgb, flow, both, gain, twice, gain_of_twice = (f"{100 * value:.1f}" for value in values)
    return f"| {name} | {rgb}% | {flow}% | {both}% | {float(gain):+} | {twice}% | {float(gain_of_twice):+} |"


def _stream_name(stream: dict[str, Any]) -> str:
    model = stream["recipe"]["model"]
    length = model["flow_length"]
    if model["modality"] == "flow":
        return f"flow, {length} fields" if length > 1 else "flow, 1 field"
    return "RGB" if model["modality"] == "rgb" else f"RGB, {length} differences"


def stream_table(rows: list[dict[str, Any]]) -> str:
    """Format the output of `stream.py`: per network, placement and stride, the cost with and without reuse."""
    lines = [
        _head(
            "model",
            "temporal",
            "new frames",
            "multiply-adds",
            "saved",
            "ms",
            "with reuse",
            "ratio",
            "95% interval",
        )
    ]
    for row in rows:
        taken = row["time_to_whole"]
        low, high = taken["interval"]
        lines.append(
            f"| {row['model']} | {row['placement']} | {row['stride']} | {row['multiply_adds']['whole'] / 1e9:.1f}G | "
            f"{row['saved_multiply_adds']:.0%} | {row['whole_ms']['median']:.0f} | {row['kept_ms']['median']:.0f} | "
            f"{taken['ratio']:.2f} | {low:.2f} to {high:.2f} |"
        )
    return "\n".join(lines)


def parity_table(rows: list[dict[str, Any]]) -> str:
    """Format the output of `parity.py`: per exported file, its scores and those of PyTorch."""
    lines = [
        _head(
            "file",
            "weights",
            "MB",
            "one by one",
            "three at once",
            "top-1 in PyTorch",
            "of the file",
            "same label",
        )
    ]
    for row in rows:
        differences, accuracy = row["check"]["difference"], row["accuracy"]
        name = "onnx, one clip" if row["to"] == "onnx" and row.get("folded") else row["to"]
        lines.append(
            f"| {name} | {row['precision']} | {row['num_bytes'] / 1e6:.1f} | {differences['1']:.1g} | "
            f"{differences['3']:.1g} | {accuracy['pytorch']['top1']:.2%} | {accuracy['exported']['top1']:.2%} | "
            f"{accuracy['agreement']:.1%} |"
        )
    return "\n".join(lines)


def exports_table(facts: dict[str, Any]) -> str:
    """Format the output of `export.py`: per runtime and network."""
    lines = [_head("runtime", "network", "ms", "to TSN", "95% interval")]
    for runtime, networks in facts["runtimes"].items():
        for name, figures in networks.items():
            low, high = figures["to_tsn"]["interval"]
            lines.append(
                f"| {runtime} | {name} | {figures['latency_ms']['median']:.0f} | "
                f"{figures['to_tsn']['ratio']:.2f} | {low:.2f} to {high:.2f} |"
            )
    return "\n".join(lines)


def load_table(facts: dict[str, Any]) -> str:
    """Format the output of `load.py`: valid uploads only, and in the mix."""
    lines = [_head("uploads", "minutes", "good a second", "p50 ms", "p95 ms", "p99 ms", "answers")]
    for name, part in facts["parts"].items():
        good = part["latency_ms"]["good 200"]
        answers = "; ".join(
            f"{kind}: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}"
            for kind, counts in sorted(part["answers"].items())
        )
        lines.append(
            f"| {name} | {part['seconds'] / 60:.1f} | {part['good_per_second']:.1f} | {good['p50']:.0f} | "
            f"{good['p95']:.0f} | {good['p99']:.0f} | {answers.replace('None', 'cut off')} |"
        )
    return "\n".join(lines)


def inference_table(rows: list[dict[str, Any]]) -> str:
    """Format the output of `cpu_inference.py`: per network and variant, medians in milliseconds."""
    lines = [_head("model", "computed by", "network ms", "speed", "with decoding ms", "real time")]
    for row in rows:
        start = f"| {row['model']} | {row['variant']} |"
        if "error" in row:
            lines.append(f"{start} failed | | | |")
            continue
        lines.append(
            f"{start} {row['network_ms']['median']:.0f} | {row['speed_to_first']['ratio']:.2f} | "
            f"{row['end_to_end_ms']['median']:.0f} | {'yes' if row['real_time'] else 'no'} |"
        )
    return "\n".join(lines)


def operations_table(rows: list[dict[str, Any]]) -> str:
    """Format the operations of `ops.py` in fp32: share of a copy's bandwidth over the places of a network."""
    lines = [_head("operation", "computed", "format", "passes", "places", "median share", "least and most")]
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if "error" in row or row["dtype"] != "fp32" or row["batch"] != 1:
            continue
        key = tuple(row[name] for name in ("operation", "mode", "format", "direction"))
        groups.setdefault(key, []).append(row["share_of_copy_bandwidth"]["ratio"])
    for key, shares in groups.items():
        lines.append(
            f"| {' | '.join(key)} | {len(shares)} | {statistics.median(shares):.2f} | "
            f"{min(shares):.2f} to {max(shares):.2f} |"
        )
    return "\n".join(lines)


def _head(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def networks_table(facts: dict[str, Any]) -> str:
    """Format the networks of `ops.py`: the cost of shuffle and shift, as latency of one clip or throughput of batches."""
    measure = "latency" if facts["networks"]["settings"]["batch_size"] == 0 else "throughput"
    rows = facts["networks"]["rows"]
    columns = list(dict.fromkeys((row["mode"], row["dtype"]) for row in rows))
    lines = [_head("to TSN", *(f"{mode}, {dtype}" for mode, dtype in columns))]
    for label in list(dict.fromkeys(row["label"] for row in rows))[1:]:
        cells = []
        for column in columns:
            found = next(row for row in rows if row["label"] == label and (row["mode"], row["dtype"]) == column)
            taken = found[measure]
            low, high = taken["interval"]
            cells.append(f"{taken['ratio']:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def timelines_table(rows: list[dict[str, Any]]) -> str:
    """Format the output of `timelines.py`: per file, window length and smoothing."""
    lines = [_head("file", "window s", "smoothed over s", "right", "unknown", "right, if it must name one")]
    for key, pair in itertools.groupby(rows, lambda row: (row["video"], row["window_seconds"], row["smooth"])):
        default, without = sorted(pair, key=lambda row: row["thresholds"])
        lines.append(
            f"| {key[0]} | {key[1]:.2f}, {default['window']} | {key[2]:g} | {default['right']:.1%} | "
            f"{default['unknown']:.1%} | {without['right']:.1%} |"
        )
    return "\n".join(lines)


def decoding_table(rows: list[dict[str, Any]]) -> str:
    """Format the summary of `decoding_equality.py`: per folder and decoder, how many files equal FFmpeg's frames."""
    lines = [_head("videos", "decoder", "files", "frames", "equal", "differ", "FFmpeg cannot read", "largest mean")]
    lines += [
        f"| {row['folder']} | {row['decoder']} | {row['files']:,} | {row['frames']:,} | {row['equal']:,} | "
        f"{row['differs']} | {row['only_here']} | {row['largest_mean']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def readers_table(rows: list[dict[str, Any]]) -> str:
    """Format the output of `decoding.py` on one CPU: frames decoded, milliseconds, and ratios to other readers."""
    rivals = {
        "TorchCodec exact": "TorchCodec exact",
        "TorchCodec approximate": "approximate",
        "decord": "decord",
        "OpenCV": "OpenCV",
        "PyAV from the first frame": "PyAV from the first",
    }
    lines = [_head("file", "frames decoded", "first read ms", "later ms", *rivals.values())]
    for row in rows:
        times, ratios = row["1 CPU"]["milliseconds"], row["1 CPU"]["ratios"]["vsn"]
        shares = (f"{ratios[name]:.2f}" if name in ratios else "fails" for name in rivals)
        lines.append(
            f"| {row['kind']} | {row['decoded']:,} of {row['num_frames']:,} | {times['vsn, first read']:.1f} | "
            f"{times['vsn']:.1f} | {' | '.join(shares)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "summary" in measured:
        print(decoding_table(measured["summary"]))
    elif "pairs" in measured:
        several = any(len(pair["seeds"]) > 1 for pair in measured["pairs"])
        print((ensembles_table if several else streams_table)(measured["pairs"]))
    elif "parts" in measured:
        print(load_table(measured))
    elif "runtimes" in measured:
        print(exports_table(measured))
    elif "operations" in measured:
        print(operations_table(measured["operations"]))
    elif "networks" in measured:
        print(networks_table(measured))
    elif "runs" in measured:
        print(runs_table(measured["runs"]))
    elif "check" in measured["rows"][0]:
        print(parity_table(measured["rows"]))
    elif "video" in measured["rows"][0]:
        print(timelines_table(measured["rows"]))
    elif "1 CPU" in measured["rows"][0]:
        print(readers_table(measured["rows"]))
    elif "variant" in measured["rows"][0]:
        print(inference_table(measured["rows"]))
    else:
        streamed = "saved_multiply_adds" in measured["rows"][0]
        print(stream_table(measured["rows"]) if streamed else loading_table(measured["rows"]))
