"""Format the rows of the paper's tables, with what results/ has of them; `page_tables.py` writes them into a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from paper_rows import COSTS, ROOT, ROWS, TABLE_6, Row

from vsn.bench.tables import PAPER_TABLE_6
from vsn.config import MODELS, ConfigError
from vsn.system.numbers import decimal, percent

RESULTS = ROOT / "results"
TOLERANCE = 0.01
"""Share by which a count may differ from the published one without a stated cause; the paper rounds to three digits."""


def _costs() -> dict[str, dict[str, int] | None]:
    return json.loads(COSTS.read_text(encoding="utf-8"))["networks"]


def totals(row: Row) -> tuple[float, float] | None:
    """Return a row's parameters in millions and its multiply-adds in billions; None if a network cannot be built."""
    counted = [(_costs()[network.key], network.clips) for network in row.networks]
    if any(one is None for one, _ in counted):
        return None
    parameters = sum(one["parameters"] for one, _ in counted if one)
    return parameters / 1e6, sum(clips * one["multiply_adds"] for one, clips in counted if one) / 1e9


def differences(row: Row) -> list[float]:
    """Return by which share of the published figures a row's counts differ from them, where both are known."""
    counted, published = totals(row), (row.parameters, row.multiply_adds)
    return [ours / other - 1 for ours, other in zip(counted or (), published, strict=False) if other]


def _cost(ours: float | None, published: float | None, unit: str) -> str:
    if ours is None:
        return f"not built; {published:g}{unit}" if published else "not built"
    text = f"{ours:.1f}{unit}"
    if not published:
        return text
    share = ours / published - 1
    return f"{text}; {published:g}{unit}" + (f" ({share:+.0%})" if abs(share) > TOLERANCE else "")


def _names(row: Row) -> str:
    """Write the networks of a row: `eco_lite`, T = 16, 20, 24, 32."""
    if totals(row) is None:
        return "none in this version"
    words = []
    for name in dict.fromkeys(network.name for network in row.networks):
        own = [network for network in row.networks if network.name == name]
        settings = "".join(f", {key} {_value(value)}" for key, value in own[0].settings)
        frames = dict.fromkeys(f"{network.num_frames}" for network in own)
        streams = {bool(network.flow_fields) for network in own}
        stream = "" if streams == {False} else ", flow" if streams == {True} else ", RGB and flow"
        clips = f", {own[0].clips} clips" if own[0].clips > 1 else ""
        size = "" if own[0].size == 224 else f" of {own[0].size} pixels"
        words.append(f"`{name}`{settings}, T = {', '.join(frames)}{size}{stream}{clips}")
    return "; ".join(words)


def _value(value: Any) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value).lower()


def _measured_peer(row: Row, top1: dict[str, tuple[float, float | None]]) -> str:
    """Write the accuracy on the embedded data set of a row's only network, in its thin form."""
    if len(row.networks) > 1 or row.networks[0].flow_fields:
        return ""
    try:
        config = row.networks[0].config
    except ConfigError:
        return ""
    thin = f"{config.kind}_resnet26_thin" if config.backbone else f"{config.name}_thin"
    if not config.backbone and thin not in MODELS:
        thin = config.name
    if thin not in top1:
        return ""
    mean, sd = top1[thin]
    return f"`{thin}` {percent(mean)}" + ("" if sd is None else f" ± {decimal(100 * sd)}")


def _embedded() -> dict[str, tuple[float, float | None]]:
    runs = [
        run
        for run in _read("embedded-cpu.json")["runs"]
        if not run["settings"] or list(run["settings"]) == ["model.name"]
    ]
    runs += _read("peers-embedded-cpu.json")["runs"]
    shares: dict[str, list[float]] = {}
    for run in runs:
        shares.setdefault(run["model"], []).append(run["forward"]["top1"])
    return {name: (fmean(values), stdev(values) if len(values) > 1 else None) for name, values in shares.items()}


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _recipes(row: Row) -> str:
    return ", ".join(f"`{name}`" for name in row.recipes) or "none"


def cost_table(number: str) -> list[Sequence[str]]:
    """Return head and rows of Tables 2, 3 and 4: networks, counts next to the published ones, accuracy, recipe, measured."""
    columns = {"2": "V1 val, test; V2 val, test", "3": "top-1, top-5", "4": "top-1, top-5"}[number]
    head = (
        "row",
        "ours",
        "parameters; published",
        "multiply-adds; published",
        f"paper: {columns}",
        "recipes",
        "embedded set",
    )
    top1 = _embedded()
    lines: list[Sequence[str]] = [head]
    for row in ROWS[number]:
        parameters, cost = totals(row) or (None, None)
        costs = (_cost(parameters, row.parameters, "M"), _cost(cost, row.multiply_adds, "G"))
        lines.append((row.label, _names(row), *costs, row.accuracy, _recipes(row), _measured_peer(row, top1)))
    return lines


def figures_table(number: str) -> list[Sequence[str]]:
    """Return head and rows of Tables 5, 7, 8 and 9: networks, counts, accuracy, recipe, measured by `vsn ablate`."""
    figures = _read("table5-embedded-cpu.json" if number == "5" else "embedded-cpu.json")["figures"][number]
    measured = [one["ours"] for one in figures]
    # Their file has one backbone, the paper two; its last row of Table 8 is ours with shift.
    places = {
        "5": (0, 1, None, None, 2, 3, None, None),
        "7": (0, 1, 2, None, None, None),
        "8": (0, 1, 2, 3, 5),
        "9": (0, 1, 2, 3),
    }
    lines: list[Sequence[str]] = [
        ("row", "ours", "parameters", "multiply-adds", "paper: Kinetics, V1", "recipes", "embedded set, thin network")
    ]
    for row, place in zip(ROWS[number], places[number], strict=True):
        ours = None if place is None else measured[place]
        sd = "" if ours is None or ours["stdev"] is None else f" ± {decimal(100 * ours['stdev'])}"
        parameters, cost = totals(row) or (None, None)
        costs = (_cost(parameters, None, "M"), _cost(cost, None, "G"))
        cell = "" if ours is None else f"{percent(ours['mean'])}{sd}"
        lines.append((row.label, _names(row), *costs, row.accuracy, _recipes(row), cell))
    return lines


def speed_table() -> list[Sequence[str]]:
    """Return head and rows of Table 6: latency and throughput relative to TSN-R50, the paper's and ours."""
    latency = {one["label"]: one["latency"]["ratio"] for one in _read("table6-latency-cpu.json")["rows"]}
    videos = {one["label"]: one["throughput"]["ratio"] for one in _read("table6-throughput-cpu.json")["rows"]}
    # Six minutes a network, not three rounds: the tighter measurement, of TSN, TSM and VSN only.
    for one in _read("ops-networks-16-cpu.json")["networks"]["rows"]:
        if (one["mode"], one["dtype"]) == ("eager", "fp32") and one["label"] in ("TSM", "VSN"):
            videos[f"{one['label'].lower()}_resnet50"] = one["throughput"]["ratio"]
    base = PAPER_TABLE_6["tsn_resnet50"]
    lines: list[Sequence[str]] = [
        ("row", "ours", "parameters", "multiply-adds", "latency to TSN-R50; paper", "videos a second to TSN-R50; paper",
         "paper: ms, videos a second, top-1")
    ]  # fmt: skip
    for row, (name, (ms, per_second, top1)) in zip(TABLE_6, PAPER_TABLE_6.items(), strict=True):
        parameters, cost = totals(row) or (None, None)
        lines.append(
            (row.label, _names(row), _cost(parameters, None, "M"), _cost(cost, None, "G"),
             f"{latency[name]:.2f}; {ms / base[0]:.2f}", f"{videos[name]:.2f}; {per_second / base[1]:.2f}",
             f"{ms}, {per_second}, {top1}")
        )  # fmt: skip
    return lines


def architecture_table() -> list[Sequence[str]]:
    """Return head and rows of Table 1, of the networks as they are built."""
    listed = json.loads(COSTS.read_text(encoding="utf-8"))["architecture"]
    lines: list[Sequence[str]] = [("layer", "VSN-R50", "VSN-R101", "output: channels x T x height x width")]
    for one, other in zip(listed["vsn_resnet50"], listed["vsn_resnet101"], strict=True):
        lines.append((one["layer"], one["blocks"], other["blocks"], one["output"]))
    return lines


def notes(number: str) -> str:
    """List the notes of a table's rows."""
    return "\n".join(f"- **{row.label}.** {row.note}" for row in ROWS[number] if row.note)


def rows_of(number: str) -> list[Sequence[str]]:
    """Return the head and the rows of a table."""
    if number == "1":
        return architecture_table()
    if number == "6":
        return speed_table()
    return cost_table(number) if number in ("2", "3", "4") else figures_table(number)
