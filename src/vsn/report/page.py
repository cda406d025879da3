"""Write the report: one self-contained HTML page over one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from vsn.report.calibration import calibration_section
from vsn.report.classes import classes_section
from vsn.report.confusion import confusion_section
from vsn.report.curves import curves_section
from vsn.report.groups import groups_section, with_groups
from vsn.report.order import order_section
from vsn.report.render import render, static_file
from vsn.report.results import Costs, results_section, summary_sentence
from vsn.report.runs import ReportRun, read_runs
from vsn.report.videos import Examples, cross_validated, examples_section, labels_section, strips_section
from vsn.system.files import write_text


def write_report(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    title: str,
    table: Path | None = None,
    strips: Path | None = None,
    split: str | None = None,
) -> Path:
    """Write the page from run folders only, without opening videos or building networks; return ``output``.

    Classes are matched by name, so runs may number them differently. A run that is not trained or not tested yet is
    shown as far as it goes. Arguments and errors are those of `read_runs` and `write_page`.
    """
    return write_page(read_runs(run_dirs, split), output, title=title, table=table, strips=strips)


def write_page(
    runs: Sequence[ReportRun],
    output: Path,
    *,
    title: str,
    table: Path | None = None,
    strips: Path | None = None,
    costs: Costs | None = None,
    examples: Examples | None = None,
) -> Path:
    """Write the page over runs atomically, and return ``output``.

    Args:
        runs: what `read_runs` returned.
        output: the HTML file.
        title: its heading.
        table: JSON ``{"columns": [...], "rows": [{...}]}`` shown instead of the table of results.
        strips: .npz of videos to show frame by frame: ``frames`` uint8 (K, T, h, w, 3), ``video_ids`` (K,) and
            ``labels`` (K,), indices into the first run's classes or into an array ``classes`` of the file.
        costs: parameters and multiply-adds by run name; `vsn.report.illustrate` measures them.
        examples: best and worst videos; `vsn.report.illustrate` finds them.
    """
    # In the order in which a reader needs them: the result, the training, the mistakes.
    sections = [
        ("results", "Results", results_section(runs, table=table, costs=costs or {})),
        ("curves", "Learning curves", curves_section(runs)),
        ("time", "Temporal reliance", order_section(runs)),
        ("classes", "Accuracy by class", classes_section(runs)),
        ("confusion", "Confusion", confusion_section(runs)),
        ("calibration", "Calibration", calibration_section(runs)),
        ("examples", "Best and worst videos", examples_section(runs, examples)),
    ]
    if grouped := with_groups(runs):
        sections.append(("groups", "Accuracy by group", groups_section(grouped)))
    if cross_validated(runs):
        sections.append(("labels", "Labels to look at", labels_section(runs, examples)))
    if strips is not None:
        sections.append(("videos", "Videos", strips_section(runs, Path(strips))))
    # Runs of the same machine share one line of versions.
    versions: dict[str, list[str]] = {}
    for run in runs:
        line = " \u00b7 ".join(f"{key} {value}" for key, value in run.versions.items()) or "no versions recorded"
        versions.setdefault(line, []).append(run.name)
    page = render(
        "page.html",
        title=title,
        summary=summary_sentence(runs),
        written=datetime.now(UTC),
        num_runs=len(runs),
        sections=sections,
        versions=versions,
        style=static_file("report.css"),
        script=static_file("report.js"),
    )
    write_text(output, page + "\n")
    return Path(output)
