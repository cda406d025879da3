"""The paper's Tables 5, 7, 8 and 9 as rows of recipes, and their layout: our figures beside the paper's.

Rows are recipes and results are dicts, so nothing here trains or needs torch. What the paper leaves open
in these tables (which blocks shift, what is averaged) is said where the rows are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any, Literal

from vsn.ablation.grid import Settings, Variant, grid_variants, make_variant, value_text
from vsn.config import STAGES, Block, ConfigError, Recipe

TableNumber = Literal[5, 7, 8, 9]
Result = Mapping[str, Any]
"""What one run came to: "name" of its variant, "seed", and a summary for each order of the frames."""

Paper = tuple[float, float]
"""Top-1 in percent on Kinetics and on Something-Something V1."""

PAPER_FLOW: dict[tuple[str, str, int], Paper] = {
    ("tsn", "ResNet-50", 1): (47.5, 27.0),
    ("tsn", "ResNet-50", 5): (54.8, 34.3),
    ("tsn", "ResNet-101", 1): (49.7, 29.2),
    ("tsn", "ResNet-101", 5): (56.5, 34.3),
    ("vsn", "ResNet-50", 1): (53.0, 33.7),
    ("vsn", "ResNet-50", 5): (56.7, 37.5),
    ("vsn", "ResNet-101", 1): (56.0, 36.1),
    ("vsn", "ResNet-101", 5): (60.1, 41.4),
}
"""Table 5: model, backbone and flow fields a segment."""
PAPER_BLOCKS: dict[tuple[str, str], Paper] = {
    ("ResNet-50", "baseline"): (71.5, 20.2),
    ("ResNet-50", "headtail"): (72.1, 43.2),
    ("ResNet-50", "compact"): (73.5, 46.6),
    ("ResNet-101", "baseline"): (72.8, 22.7),
    ("ResNet-101", "headtail"): (74.0, 44.5),
    ("ResNet-101", "compact"): (75.4, 47.8),
}
"""Table 7."""
PAPER_NUM_BLOCKS: dict[int, Paper] = {
    0: (71.5, 20.2),
    1: (72.2, 40.7),
    2: (73.0, 42.2),
    3: (72.8, 43.9),
    4: (73.5, 46.6),
}
"""Table 8; its last row is the combination of Table 9."""
PAPER_MODELS: dict[str, Paper] = {
    "baseline": (71.5, 20.2),
    "+ temporal shift": (72.4, 43.4),
    "+ video shuffle": (73.3, 46.0),
    "+ combination": (73.5, 46.6),
}
"""Table 9."""


@dataclass(frozen=True)
class Row:
    """A row: what stands before its figures, and the runs they average."""

    labels: tuple[str, ...]
    variants: tuple[Variant, ...]
    paper: Paper | None = None
    baseline: tuple[str, ...] | None = None
    """Labels of the row that the gain in brackets is over."""


@dataclass(frozen=True)
class Table:
    """A table of an ablation, before there are figures."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def has_paper(self) -> bool:
        """Whether the paper has such a table."""
        return any(row.paper for row in self.rows)


def rows_of_table(number: TableNumber, base: Recipe, backbones: Sequence[str] = ()) -> list[Table]:
    """A table of the paper as recipes: `base` with other models.

    Table 8 comes with a second one, its placements one by one.

    Args:
        number: of the table in the paper.
        base: every other setting.
        backbones: at most two, beside the paper's ResNet-50 and ResNet-101; default the one of `base`.
            Tables 8 and 9 take the first alone.

    Raises:
        ConfigError: a table or a backbone that cannot be had; Table 5 where flow is no input.
    """
    if not backbones and not base.model.backbone:
        raise ConfigError(
            f"The paper's tables are of models on a 2D backbone, and {base.model.name!r} has none; say which with "
            "--backbones, such as resnet50."
        )
    names = tuple(backbones) or (base.model.backbone,)
    if len(names) > 2:
        raise ConfigError(
            f"--backbones has {len(names)} names; the paper's tables compare at most two, its ResNet-50 and ResNet-101."
        )
    makers: dict[int, Callable[[Recipe, Sequence[str]], list[Table]]] = {
        5: _flow_table,
        7: _block_table,
        8: _number_tables,
        9: _model_costs,
    }
    if number not in makers:
        raise ConfigError(f"--tables has {number}; the ablations of the paper are its Tables 5, 7, 8 and 9.")
    return makers[number](base, names)


def grid_table(base: Recipe, grid: Mapping[str, Sequence[Any]]) -> Table:
    """A table of every combination of a grid, one column a setting."""
    rows = [Row(tuple(map(value_text, values)), (variant,)) for values, variant in grid_variants(base, grid).items()]
    return Table("grid", "Grid. Every combination of the settings.", tuple(grid), tuple(rows))


def make_tables(
    base: Recipe, numbers: Sequence[TableNumber], grid: Mapping[str, Sequence[Any]], backbones: Sequence[str]
) -> tuple[list[Table], dict[str, str]]:
    """The tables asked for, the grid last; and why those that cannot be made are missing, by their key.

    Raises:
        ConfigError: a number, a setting or a backbone that cannot be had. Only Table 5 may be missing: it
            needs stored optical flow, which the others do not.
    """
    tables, missing = [], {}
    for number in numbers:
        try:
            tables += rows_of_table(number, base, backbones)
        except ConfigError as error:
            if number != 5:
                raise
            missing["5"] = str(error)
    if grid:
        tables.append(grid_table(base, grid))
    return tables, missing


def _plain(prefix: str, backbone: str) -> Settings:
    """A model without shuffle blocks: TSN or TSM."""
    return {"model.name": f"{prefix}_{backbone}"}


def _shuffled(
    backbone: str, *, block: Block = "compact", places: Sequence[str] = STAGES, shift: bool = True
) -> Settings:
    """A VSN, whatever the recipe's own is."""
    return {
        "model.name": f"vsn_{backbone}",
        "model.block": block,
        "model.places": tuple(places),
        "model.shift": shift,
    }


def _beside(backbones: Sequence[str]) -> dict[str, str]:
    """Backbone -> the one of the paper it stands beside: by its depth, else by its place."""
    found = {}
    for place, name in enumerate(backbones):
        deep = "101" in name or (place == 1 and "50" not in name)
        found[name] = "ResNet-101" if deep else "ResNet-50"
    return found


def _flow_table(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    # Flow is cropped less hard than RGB (TSN), so scales below 3/4 go.
    scales = [scale for scale in base.clip.crop_scales if scale >= 0.75] or list(base.clip.crop_scales)
    rows = []
    for prefix in ("tsn", "vsn"):
        for name, paper_name in _beside(backbones).items():
            model = _plain("tsn", name) if prefix == "tsn" else _shuffled(name)
            for length in (1, 5):
                flow = {"model.modality": "flow", "model.flow_length": length, "clip.crop_scales": scales}
                variant = make_variant(base, {**model, **flow}, "Table 5")
                labels = (name if prefix == "tsn" else f"VSN {name}", f"{base.model.num_frames} x {length}")
                rows.append(Row(labels, (variant,), PAPER_FLOW[prefix, paper_name, length]))
    title = "Table 5. VSN models against TSN counterparts, trained on optical flow."
    return [Table("5", title, ("Model", "#Flow"), tuple(rows))]


def _block_table(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    rows = []
    for name, paper_name in _beside(backbones).items():
        models = {
            "baseline": _plain("tsn", name),
            "headtail": _shuffled(name, block="headtail"),
            "compact": _shuffled(name),
        }
        for label, settings in models.items():
            baseline = None if label == "baseline" else (name, "baseline")
            paper = PAPER_BLOCKS[paper_name, label]
            rows.append(Row((name, label), (make_variant(base, settings, "Table 7"),), paper, baseline))
    title = "Table 7. Comparison with different residual blocks."
    return [Table("7", title, ("Backbone", "Block"), tuple(rows))]


def _number_tables(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    """Table 8 and its placements.

    Our reading: rows 1 to 3 are the mean over every placement of so many blocks, of shuffle without shift.
    The paper's last row is the combination of its Table 9, so that both are given: without shift beside
    the "+ video shuffle" of Table 9, and with it.
    """
    name = backbones[0]

    def placed(places: Sequence[str]) -> Variant:
        return make_variant(base, _shuffled(name, places=places, shift=False), "Table 8")

    zero = ("0",)
    rows = [Row(zero, (make_variant(base, _plain("tsn", name), "Table 8"),), PAPER_NUM_BLOCKS[0])]
    single = []
    for count in range(1, 1 + len(STAGES)):
        placements = {places: placed(places) for places in itertools.combinations(STAGES, count)}
        paper = PAPER_NUM_BLOCKS[count] if count < len(STAGES) else PAPER_MODELS["+ video shuffle"]
        rows.append(Row((str(count),), tuple(placements.values()), paper, zero))
        single += [Row((value_text(places),), (variant,)) for places, variant in placements.items()]
    both = make_variant(base, _shuffled(name), "Table 8")
    rows.append(Row(("4, and shift",), (both,), PAPER_NUM_BLOCKS[4], zero))
    notes = (
        "Rows 1 to 4: shuffle without shift, the mean over every placement of so many blocks. The paper's last row, "
        '46.6, has shift in the other blocks; beside row 4 stands its "+ video shuffle" of Table 9.',
    )
    return [
        Table("8", "Table 8. Optimal number of compact blocks.", ("#Blocks",), tuple(rows), notes),
        Table("8-places", "Table 8, placement by placement, without shift.", ("Blocks in",), tuple(single)),
    ]


def _model_costs(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    name = backbones[0]
    models = {
        "baseline": _plain("tsn", name),
        "+ temporal shift": _plain("tsm", name),
        "+ video shuffle": _shuffled(name, shift=False),
        "+ combination": _shuffled(name),
    }
    rows = [
        Row(
            (label,),
            (make_variant(base, settings, "Table 9"),),
            PAPER_MODELS[label],
            None if label == "baseline" else ("baseline",),
        )
        for label, settings in models.items()
    ]
    return [Table("9", "Table 9. Comparison of video shuffle and temporal shift.", ("Model",), tuple(rows))]


@dataclass(frozen=True)
class Figures:
    """What the runs of a row came to, as shares of 1."""

    mean: float
    """Over the variants of the row, of their means over seeds."""
    stdev: float | None
    """Of the means of single seeds that have every variant, n - 1 below; None with fewer than two such seeds."""
    num_runs: int
    num_expected: int
    shuffled: float | None
    """The mean with the sampled frames shuffled, where all the runs were tested so."""
    multiply_adds: int | None
    """Of one clip, where the variants of the row agree on it."""


def figures_of(row: Row, results: Sequence[Result], num_seeds: int) -> Figures | None:
    """The figures of a row from the results there are; None before the first.

    Means over placements are means of means, so that a placement with more seeds behind it weighs no more.
    """
    names = [variant.name for variant in row.variants]
    of_name = {name: [r for r in results if r["name"] == name] for name in names}
    found = [runs for runs in of_name.values() if runs]
    if not found:
        return None

    def average(order: str) -> float:
        return mean(mean(run[order]["top1"] for run in runs) for runs in found)

    runs = [run for group in found for run in group]
    whole_seeds = [
        mean(own)
        for seed in {run["seed"] for run in runs}
        if len(own := [run["forward"]["top1"] for run in runs if run["seed"] == seed]) == len(names)
    ]
    costs = {run.get("multiply_adds") for run in runs}
    return Figures(
        average("forward"),
        stdev(whole_seeds) if len(whole_seeds) > 1 else None,
        len(runs),
        max(len(names) * num_seeds, len(runs)),
        average("shuffled") if all("shuffled" in run for run in runs) else None,
        costs.pop() if len(costs) == 1 else None,
    )


def format_table(table: Table, results: Sequence[Result], num_seeds: int, data: str) -> str:
    """A table as Markdown that is aligned to be read as it is.

    Args:
        table: its rows.
        results: of the runs; those of other tables are passed over.
        num_seeds: seeds asked for; a row with fewer runs says "2 of 3".
        data: what our figures were measured on, for the line below the title.
    """
    figures = {row.labels: figures_of(row, results, num_seeds) for row in table.rows}
    shuffled = any(f and f.shuffled is not None for f in figures.values())
    costs = {f.multiply_adds for f in figures.values() if f}
    ours = ["ours", "sd", "runs", *(["frames shuffled"] if shuffled else [])]
    if len(costs) > 1:
        ours.append("multiply-adds")
    lines = [[*table.columns, *ours, *(["paper: Kinetics", "paper: Sth-V1"] if table.has_paper else [])]]
    by_labels = {row.labels: row for row in table.rows}
    for row in table.rows:
        own = figures[row.labels]
        first = by_labels[row.baseline] if row.baseline else None
        cells = _our_cells(own, figures[first.labels] if first else None)
        if not shuffled:
            del cells["frames shuffled"]
        if len(costs) <= 1:
            del cells["multiply-adds"]
        paper = []
        if table.has_paper:
            against = first.paper if first and first.paper else (None, None)
            paper = [_gain(value, base) for value, base in zip(row.paper or (), against, strict=True)]
        lines.append([*row.labels, *cells.values(), *paper])
    caption = f"Top-1 in percent. Ours: {data}."
    if table.has_paper:
        caption += " The paper's: ResNets on other data, for the shape of the comparison only."
    return "\n".join([table.title, caption, *table.notes, "", *_markdown(lines, len(table.columns))])


def _our_cells(own: Figures | None, first: Figures | None) -> dict[str, str]:
    if own is None:
        return dict.fromkeys(("ours", "sd", "runs", "frames shuffled", "multiply-adds"), "-") | {"runs": "0"}
    full = own.num_runs == own.num_expected
    return {
        "ours": _gain(100 * own.mean, 100 * first.mean if first else None),
        "sd": "-" if own.stdev is None else f"{100 * own.stdev:.1f}",
        "runs": str(own.num_runs) if full else f"{own.num_runs} of {own.num_expected}",
        "frames shuffled": "-" if own.shuffled is None else f"{100 * own.shuffled:.1f}",
        "multiply-adds": "-" if own.multiply_adds is None else f"{own.multiply_adds / 1e6:,.0f}M",
    }


def _gain(value: float, base: float | None) -> str:
    """A figure, and in brackets how much it is above another."""
    return f"{value:.1f}" if base is None else f"{value:.1f} ({value - base:+.1f})"


def _markdown(lines: Sequence[Sequence[str]], num_labels: int) -> list[str]:
    """A Markdown table with aligned columns: labels to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *body = [
        "| "
        + " | ".join(
            cell.ljust(width) if column < num_labels else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    ]
    rule = [
        "-" * (width + 2) if column < num_labels else "-" * (width + 1) + ":" for column, width in enumerate(widths)
    ]
    return [head, f"|{'|'.join(rule)}|", *body]
