"""Write the report: one self-contained HTML page over one or several runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from vsn.report.behind import videos_behind
from vsn.report.calibration import calibration_section
from vsn.report.classes import classes_section
from vsn.report.confusion import confusion_section
from vsn.report.curves import curves_section
from vsn.report.differences import compare_with_best, differences_section, named_scores
from vsn.report.groups import groups_section, with_groups
from vsn.report.order import order_section
from vsn.report.overview import data_facts, run_facts
from vsn.report.render import Lacks, join_names, render, static_file
from vsn.report.results import Costs, results_section, summary_sentence
from vsn.report.runs import ReportError, ReportRun, read_runs
from vsn.report.training import training_notes
from vsn.report.videos import (
    Examples,
    Strip,
    behind_strips,
    examples_section,
    label_judges,
    labels_section,
    strips_section,
)
from vsn.system.files import write_text


@dataclass(frozen=True)
class Section:
    """A part of the page; one that lacks its content is one line."""

    key: str
    heading: str
    content: Markup | str = ""
    lacks: str = ""
    commands: Sequence[Sequence[str]] = ()

    @classmethod
    def of(cls, key: str, heading: str, content: Markup | Lacks) -> Section:
        """Return the section of what a function of this package rendered."""
        if isinstance(content, Lacks):
            return cls(key, heading, lacks=content.text, commands=content.commands)
        return cls(key, heading, content)


def write_report(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    title: str = "",
    table: Path | None = None,
    strips: Path | None = None,
    split: str | None = None,
    command: Sequence[str] = (),
) -> Path:
    """Write the page from run folders only, without opening videos or building networks; return ``output``.

    Classes are matched by name, so runs may number them differently. A run that is not trained or not tested yet is
    shown as far as it goes. Arguments and errors are those of `read_runs` and `write_page`.
    """
    return write_page(read_runs(run_dirs, split), output, title=title, table=table, strips=strips, command=command)


def write_page(
    runs: Sequence[ReportRun],
    output: Path,
    *,
    title: str = "",
    table: Path | None = None,
    strips: Path | None = None,
    costs: Costs | None = None,
    examples: Examples | None = None,
    command: Sequence[str] = (),
    refresh_seconds: int | None = None,
) -> Path:
    """Write the page over runs atomically, and return ``output``.

    Args:
        runs: what `read_runs` returned.
        output: the HTML file.
        title: its heading; default the names of the runs.
        table: JSON ``{"columns": [...], "rows": [{...}]}`` shown instead of the table of results.
        strips: .npz of videos to show frame by frame: ``frames`` uint8 (K, T, h, w, 3), ``video_ids`` (K,) and
            ``labels`` (K,), indices into the first run's classes or into an array ``classes`` of the file.
        costs: parameters and multiply-adds by run name; `vsn.report.illustrate` measures them.
        examples: best and worst videos; `vsn.report.illustrate` finds them.
        command: the command that writes this page, shown at its end.
        refresh_seconds: how often a browser loads the page again; None: never.
    """
    tested, costs = named_scores(runs), costs or {}
    pairs = compare_with_best(tested)
    # In the order in which a reader needs them: the result, the training, the mistakes.
    sections = [
        Section.of("results", "Results", results_section(runs, table=table, costs=costs)),
        *([Section("differences", "Differences", differences_section(pairs, tested))] if pairs else []),
        # First for reading: a wrong label makes the rest of the page a little wrong.
        *([Section.of("labels", "Labels to look at", labels_section(runs, examples))] if label_judges(runs) else []),
        Section.of("curves", "Learning curves", curves_section(runs)),
        Section.of("time", "Temporal reliance", order_section(runs)),
        Section.of("classes", "Accuracy by class", classes_section(runs)),
        Section.of("confusion", "Confusion", confusion_section(runs)),
        Section.of("calibration", "Calibration", calibration_section(runs)),
        Section.of("examples", "Best and worst videos", examples_section(runs, examples)),
    ]
    if grouped := with_groups(runs):
        sections.append(Section("groups", "Accuracy by group", groups_section(grouped)))
    if strips is not None:
        sections.append(Section("videos", "Videos", strips_section(runs, Path(strips))))
    # Runs of the same machine share one line of versions.
    versions: dict[str, list[str]] = {}
    for run in runs:
        line = " \u00b7 ".join(f"{key} {value}" for key, value in run.versions.items()) or "no versions recorded"
        versions.setdefault(line, []).append(run.name)
    again = [["vsn", "train", str(run.path / "recipe.toml"), "--out", f"{run.path}-again"] for run in runs]
    return write_sections(
        output,
        title=title or _default_title(runs),
        summary=summary_sentence(runs, pairs),
        overview=render("overview.html", facts=data_facts(runs), runs=run_facts(runs, costs)),
        sections=sections,
        versions=versions,
        commands=[command, *again] if command else again,
        num_runs=len(runs),
        run_hashes=[_hash_run(run.path) for run in runs],
        refresh_seconds=refresh_seconds,
        training=training_notes(runs),
        behind=videos_behind(tested),
        hidden_strips=behind_strips(runs, examples),
    )


def check_output(output: Path, run_dirs: Sequence[Path]) -> None:
    """Check that a page may be written: a file that is there is a report with one of these runs.

    Raises:
        ReportError: it is another file, or a report of other runs only.
    """
    if not output.is_file():
        return
    with output.open("rb") as file:
        head = file.read(4096).decode(errors="replace")
    hashes = re.search(r'<meta name="vsn-runs" content="([^"]*)">', head)
    if hashes is None:
        raise ReportError(f"{output} exists, and is no report of runs. Choose another file with --out, or delete it.")
    if not {_hash_run(run_dir) for run_dir in run_dirs} & set(hashes[1].split()):
        raise ReportError(f"{output} is a report of other runs. Choose another file with --out, or delete it.")


def _hash_run(run_dir: Path) -> str:
    # A hash: a page is passed on, and folders of its writer are nobody's business.
    return hashlib.sha256(str(Path(run_dir).resolve()).encode(errors="surrogatepass")).hexdigest()[:16]


def write_sections(
    output: Path,
    *,
    title: str,
    summary: str,
    overview: Markup | str,
    sections: Sequence[Section],
    commands: Sequence[Sequence[str]],
    behind: dict[str, Any] | None,
    hidden_strips: Sequence[Strip] = (),
    versions: Mapping[str, Sequence[str]] = MappingProxyType({}),
    training: Sequence[str] = (),
    num_runs: int = 0,
    run_hashes: Sequence[str] = (),
    refresh_seconds: int | None = None,
) -> Path:
    """Render the sections as one page, write it atomically, and return its path.

    Args:
        output: the HTML file.
        title: its heading.
        summary: the result, as plain text.
        overview: what the page is about.
        sections: in their order.
        commands: that made the page.
        behind: what `videos_behind` returned.
        hidden_strips: videos that only the script shows.
        versions: line of versions -> names of the runs that have them.
        training: a sentence for each run in training.
        num_runs: of the learning curves.
        run_hashes: which runs the page is of, for `check_output`.
        refresh_seconds: how often a browser loads the page again.
    """
    page = render(
        "page.html",
        title=title,
        summary=summary,
        overview=overview,
        sections=sections,
        commands=commands,
        behind=behind,
        hidden_strips=hidden_strips,
        versions=versions,
        training=training,
        num_runs=num_runs,
        run_hashes=run_hashes,
        refresh_seconds=refresh_seconds,
        written=datetime.now(UTC),
        style=static_file("report.css"),
        script=static_file("report.js"),
    )
    write_text(output, page + "\n")
    return Path(output)


def _default_title(runs: Sequence[ReportRun]) -> str:
    names = [run.name for run in runs]
    if len(names) == 1:
        return f"Run {names[0]}"
    return f"{join_names(names)} compared" if len(names) <= 4 else f"{len(names)} runs compared"
