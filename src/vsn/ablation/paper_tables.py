"""Define the paper's Tables 5, 7, 8 and 9 as rows of recipes, and format them next to the paper's figures.

Does not import torch. Where the paper leaves a detail open (which blocks shift, what is averaged), a comment at the
table says how we read it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from vsn.ablation.grid import Settings, Variant, format_value, grid_variants, make_variant
from vsn.ablation.results import RunResult, TestOrder
from vsn.config import STAGES, Block, ConfigError, Recipe
from vsn.system.numbers import decimal, short_count

TableNumber = Literal[5, 7, 8, 9]

Paper = tuple[float, float]
"""Top-1 in percent on Kinetics and on Something-Something V1."""

# fmt: off
PAPER_FLOW: dict[tuple[str, str, int], Paper] = {
    ("tsn", "ResNet-50", 1): (47.5, 27.0), ("tsn", "ResNet-50", 5): (54.8, 34.3),
    ("tsn", "ResNet-101", 1): (49.7, 29.2), ("tsn", "ResNet-101", 5): (56.5, 34.3),
    ("vsn", "ResNet-50", 1): (53.0, 33.7), ("vsn", "ResNet-50", 5): (56.7, 37.5),
    ("vsn", "ResNet-101", 1): (56.0, 36.1), ("vsn", "ResNet-101", 5): (60.1, 41.4),
}
"""Table 5: model, backbone and number of flow fields per segment."""
PAPER_BLOCKS: dict[str, dict[str, Paper]] = {
    "ResNet-50": {"baseline": (71.5, 20.2), "headtail": (72.1, 43.2), "compact": (73.5, 46.6)},
    "ResNet-101": {"baseline": (72.8, 22.7), "headtail": (74.0, 44.5), "compact": (75.4, 47.8)},
}
"""Table 7."""
PAPER_NUM_BLOCKS: dict[int, Paper] = {
    0: (71.5, 20.2), 1: (72.2, 40.7), 2: (73.0, 42.2), 3: (72.8, 43.9), 4: (73.5, 46.6),
}
"""Table 8; its last row is the combination of Table 9."""
PAPER_MODELS: dict[str, Paper] = {
    "baseline": (71.5, 20.2), "+ temporal shift": (72.4, 43.4),
    "+ video shuffle": (73.3, 46.0), "+ combination": (73.5, 46.6),
}
"""Table 9."""
# fmt: on


@dataclass(frozen=True)
class Row:
    """A table row: its labels, and the runs whose results it averages."""

    labels: tuple[str, ...]
    variants: tuple[Variant, ...]
    paper: Paper | None = None
    baseline: tuple[str, ...] | None = None
    """Labels of the row that the gain in brackets is relative to."""


@dataclass(frozen=True)
class Table:
    """A table of an ablation, without results."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def make_tables(
    base: Recipe, numbers: Sequence[int], grid: Mapping[str, Sequence[Any]], backbones: Sequence[str]
) -> tuple[list[Table], dict[str, str]]:
    """Return the tables of the paper with these numbers, then the grid, and the reason by key for missing ones.

    Raises:
        ConfigError: an unknown table, setting or backbone. Only Table 5 may be missing, for lack of stored flow.
    """
    tables, missing = [], {}
    for number in numbers:
        try:
            tables += make_paper_tables(number, base, backbones)
        except ConfigError as error:
            if number != 5:
                raise
            missing["5"] = str(error)
    if grid:
        tables.append(grid_table(base, grid))
    return tables, missing


def grid_table(base: Recipe, grid: Mapping[str, Sequence[Any]]) -> Table:
    """Return the table of every combination of a grid, one column per setting."""
    rows = [Row(tuple(map(format_value, values)), (variant,)) for values, variant in grid_variants(base, grid).items()]
    return Table("grid", "Grid. Every combination of the settings.", tuple(grid), tuple(rows))


def make_paper_tables(number: int, base: Recipe, backbones: Sequence[str] = ()) -> list[Table]:
    """Return a table of the paper as recipes that change the model in ``base``; 8 also has a table of placements.

    Of the backbones (default: that of ``base``) at most two are compared with the paper's ResNet-50 and ResNet-101;
    Tables 8 and 9 use only the first.

    Raises:
        ConfigError: an unknown table or backbone; Table 5 without stored flow.
    """
    if number not in TABLES:
        raise ConfigError(f"--tables has {number}; the ablations of the paper are its Tables 5, 7, 8 and 9.")
    # A published 3D network has no 2D backbone to insert a shuffle into.
    if not backbones and not base.model.backbone:
        raise ConfigError(
            f"The paper's tables need a 2D backbone, which {base.model.name!r} does not have; pass --backbones, such as "
            "resnet50."
        )
    names = tuple(backbones) or (base.model.backbone,)
    if len(names) > 2:
        raise ConfigError(f"--backbones takes at most two names, as the paper's tables have, got {len(names)}.")
    return TABLES[number](base, names)


def _shuffled(
    backbone: str, *, block: Block = "compact", places: Sequence[str] = STAGES, shift: bool = True
) -> Settings:
    # All are set, so that the table does not depend on the blocks of the base recipe.
    return {"model.name": f"vsn_{backbone}", "model.block": block, "model.places": tuple(places), "model.shift": shift}


def _paper_backbones(backbones: Sequence[str]) -> dict[str, str]:
    """Map each backbone to the paper's that it is compared with: by its depth, else the second is the deep one."""
    # "resnet101" by its name, and of two unknown ones the second: ("resnet26_thin", "regnet") -> (50, 101).
    is_deep = [("101" in name or (place == 1 and "50" not in name)) for place, name in enumerate(backbones)]
    return {name: "ResNet-101" if deep else "ResNet-50" for name, deep in zip(backbones, is_deep, strict=True)}


def _flow_table(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    # TSN crops flow less hard than RGB: without the scales below 3/4.
    scales = [scale for scale in base.clip.crop_scales if scale >= 0.75] or list(base.clip.crop_scales)
    rows = []
    for prefix in ("tsn", "vsn"):
        for name, paper_name in _paper_backbones(backbones).items():
            model = {"model.name": f"tsn_{name}"} if prefix == "tsn" else _shuffled(name)
            for length in (1, 5):
                flow = {"model.modality": "flow", "model.flow_length": length, "clip.crop_scales": scales}
                variant = make_variant(base, {**model, **flow}, "Table 5")
                labels = (name if prefix == "tsn" else f"VSN {name}", f"{base.model.num_frames} x {length}")
                rows.append(Row(labels, (variant,), PAPER_FLOW[prefix, paper_name, length]))
    title = "Table 5. VSN models against TSN counterparts, trained on optical flow."
    return [Table("5", title, ("Model", "#Flow"), tuple(rows))]


def _model_rows(
    base: Recipe, where: str, models: Mapping[str, Settings], paper: Mapping[str, Paper], prefix: tuple[str, ...] = ()
) -> list[Row]:
    """Return a row per model; all but "baseline" show their gain over it."""
    return [
        Row(
            (*prefix, label),
            (make_variant(base, settings, where),),
            paper[label],
            None if label == "baseline" else (*prefix, "baseline"),
        )
        for label, settings in models.items()
    ]


def _block_table(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    rows = []
    for name, paper_name in _paper_backbones(backbones).items():
        # Both blocks have shuffle in the last block of each stage and shift in the others.
        models = {
            "baseline": {"model.name": f"tsn_{name}"},
            "headtail": _shuffled(name, block="headtail"),
            "compact": _shuffled(name),
        }
        rows += _model_rows(base, "Table 7", models, PAPER_BLOCKS[paper_name], (name,))
    title = "Table 7. Comparison with different residual blocks."
    return [Table("7", title, ("Backbone", "Block"), tuple(rows))]


def _num_blocks_tables(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    name = backbones[0]

    def variant(settings: Settings) -> Variant:
        return make_variant(base, settings, "Table 8")

    # Our reading: rows 1 to 3 of the paper are the mean over every placement of so many blocks, with shuffle
    # and without shift. Its last row, 4 blocks, equals the combination in Table 9, which has shift too. We give
    # both: 4 blocks without shift next to "+ video shuffle" of Table 9, then 4 blocks with shift.
    zero = ("0",)
    rows = [Row(zero, (variant({"model.name": f"tsn_{name}"}),), PAPER_NUM_BLOCKS[0])]
    single = []
    for count in range(1, 1 + len(STAGES)):
        placements = {
            places: variant(_shuffled(name, places=places, shift=False))
            for places in itertools.combinations(STAGES, count)
        }
        paper = PAPER_NUM_BLOCKS[count] if count < len(STAGES) else PAPER_MODELS["+ video shuffle"]
        rows.append(Row((str(count),), tuple(placements.values()), paper, zero))
        single += [Row((format_value(places),), (placed,)) for places, placed in placements.items()]
    rows.append(Row(("4, and shift",), (variant(_shuffled(name)),), PAPER_NUM_BLOCKS[4], zero))
    notes = (
        "Rows 1 to 4: shuffle without shift, the mean over every placement of so many blocks. The paper's last row, "
        '46.6, has shift in the other blocks; row 4 is compared with its "+ video shuffle" of Table 9.',
    )
    return [
        Table("8", "Table 8. Optimal number of compact blocks.", ("#Blocks",), tuple(rows), notes),
        Table("8-places", "Table 8, placement by placement, without shift.", ("Blocks in",), tuple(single)),
    ]


def _shift_and_shuffle_table(base: Recipe, backbones: Sequence[str]) -> list[Table]:
    name = backbones[0]
    models = {
        "baseline": {"model.name": f"tsn_{name}"},
        "+ temporal shift": {"model.name": f"tsm_{name}"},
        "+ video shuffle": _shuffled(name, shift=False),
        "+ combination": _shuffled(name),
    }
    rows = _model_rows(base, "Table 9", models, PAPER_MODELS)
    return [Table("9", "Table 9. Comparison of video shuffle and temporal shift.", ("Model",), tuple(rows))]


TABLES: dict[int, Callable[[Recipe, Sequence[str]], list[Table]]] = {
    5: _flow_table,
    7: _block_table,
    8: _num_blocks_tables,
    9: _shift_and_shuffle_table,
}


@dataclass(frozen=True)
class Figures:
    """The results of a row, as shares of 1."""

    mean: float
    """Over the variants of the row, of their means over seeds."""
    stdev: float | None
    """Over the seeds that have every variant, of their means; with n - 1. None with fewer than two such seeds."""
    num_runs: int
    num_expected: int
    shuffled: float | None
    """Like `mean`, with the sampled frames shuffled; None unless all the runs were tested so."""
    multiply_adds: int | None
    """Of one clip; None if the variants of the row differ."""


def figures_of(row: Row, results: Sequence[RunResult], num_seeds: int) -> Figures | None:
    """Return the figures of a row from the results so far; None without any."""
    names = [variant.name for variant in row.variants]
    by_name = {name: [result for result in results if result["name"] == name] for name in names}
    runs = [run for group in by_name.values() for run in group]
    if not runs:
        return None

    def average(order: TestOrder) -> float:
        # A mean of means: a variant that was run with more seeds weighs no more.
        # a: 0.1, 0.2, 0.6, b: 0.9 -> (0.3 + 0.9) / 2 = 0.6, not 1.8 / 4.
        return mean(mean(run[order]["top1"] for run in group) for group in by_name.values() if group)

    # The deviation over seeds, not over runs: a seed's mean is over the same variants as every other seed's.
    by_seed = {
        seed: [run["forward"]["top1"] for run in runs if run["seed"] == seed] for seed in {r["seed"] for r in runs}
    }
    seed_means = [mean(top1) for top1 in by_seed.values() if len(top1) == len(names)]
    # Results of early versions have no cost.
    costs = {run.get("multiply_adds") for run in runs}
    return Figures(
        mean=average("forward"),
        stdev=stdev(seed_means) if len(seed_means) > 1 else None,
        num_runs=len(runs),
        num_expected=max(len(names) * num_seeds, len(runs)),
        shuffled=average("shuffled") if all("shuffled" in run for run in runs) else None,
        multiply_adds=costs.pop() if len(costs) == 1 else None,
    )


def format_table(table: Table, results: Sequence[RunResult], num_seeds: int, data: str) -> str:
    """Format a table as Markdown with aligned columns; ``data`` describes what our figures were measured on."""
    has_paper = any(row.paper for row in table.rows)
    rows = {row.labels: row for row in table.rows}
    figures = {row.labels: figures_of(row, results, num_seeds) for row in table.rows}
    measured = [f for f in figures.values() if f]
    # Optional columns appear only if they have something to show.
    columns = ["ours", "sd", "runs"]
    if any(f.shuffled is not None for f in measured):
        columns.append("frames shuffled")
    if len({f.multiply_adds for f in measured}) > 1:  # a column of equal costs says nothing
        columns.append("multiply-adds")
    if has_paper:
        columns += ["paper: Kinetics", "paper: Sth-V1"]
    lines = [[*table.columns, *columns]]
    for row in table.rows:
        baseline = rows[row.baseline] if row.baseline else None
        cells = _our_cells(figures[row.labels], figures[row.baseline] if row.baseline else None)
        if row.paper:
            # The paper's gain is computed from its figures in the same way, not stored.
            base = baseline.paper if baseline and baseline.paper else (None, None)
            cells["paper: Kinetics"], cells["paper: Sth-V1"] = map(_gain, row.paper, base)
        lines.append([*row.labels, *(cells.get(column, "-") for column in columns)])
    caption = f"Top-1 in percent. Ours: {data}."
    if has_paper:
        caption += " The paper's: ResNets on other data, for the shape of the comparison only."
    return "\n".join([table.title, caption, *table.notes, "", *_markdown(lines, num_labels=len(table.columns))])


def _our_cells(figures: Figures | None, baseline: Figures | None) -> dict[str, str]:
    """Format figures by column; a missing column is shown as "-"."""
    if figures is None:
        return {"runs": "0"}
    complete = figures.num_runs == figures.num_expected
    cells = {
        "ours": _gain(100 * figures.mean, 100 * baseline.mean if baseline else None),
        "runs": str(figures.num_runs) if complete else f"{figures.num_runs} of {figures.num_expected}",
    }
    if figures.stdev is not None:
        cells["sd"] = decimal(100 * figures.stdev)
    if figures.shuffled is not None:
        cells["frames shuffled"] = decimal(100 * figures.shuffled)
    if figures.multiply_adds is not None:
        cells["multiply-adds"] = short_count(figures.multiply_adds)
    return cells


def _gain(value: float, baseline: float | None) -> str:
    """Format a figure, and in brackets its difference from the baseline."""
    return decimal(value) if baseline is None else f"{decimal(value)} ({decimal(value - baseline, signed=True)})"


def _markdown(lines: Sequence[Sequence[str]], *, num_labels: int) -> list[str]:
    """Format a Markdown table, the first line its header: labels aligned to the left, figures to the right."""
    # Build column by column, because the width of a column depends on all its cells.
    columns = []
    for number, cells in enumerate(zip(*lines, strict=True)):
        width = max(map(len, cells))
        is_label = number < num_labels
        head, *body = [f" {cell.ljust(width) if is_label else cell.rjust(width)} " for cell in cells]
        columns.append([head, "-" * (width + 2) if is_label else "-" * (width + 1) + ":", *body])
    return [f"|{'|'.join(line)}|" for line in zip(*columns, strict=True)]
