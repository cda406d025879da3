"""The page: its sections in order, and the document around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from vsn.report import parts
from vsn.report.calibration import calibration_section
from vsn.report.classes import classes_section
from vsn.report.confusion import confusion_section
from vsn.report.curves import curves_section
from vsn.report.order import order_section
from vsn.report.results import Costs, results_section, summary_sentence
from vsn.report.runs import Run, read_runs
from vsn.report.videos import Examples, examples_section, strips_section
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
    """Write one self-contained HTML page over `run_dirs` to `output` and return `output`.

    split: whose results; default the one that most runs were tested on. table, strips: see `write_page`.
    Classes are matched by name, so runs may number them differently. A run that was not trained or not
    tested yet is shown as far as it goes.

    Raises `ReportError` or `ScoresError`, both a `ValueError`, for a damaged file and for runs that cannot
    be compared: other classes, other videos.
    """
    return write_page(read_runs(run_dirs, split), output, title=title, table=table, strips=strips)


def write_page(
    runs: Sequence[Run],
    output: Path,
    *,
    title: str,
    table: Path | None = None,
    strips: Path | None = None,
    costs: Costs | None = None,
    examples: Examples | None = None,
) -> Path:
    """Write the page over runs that `read_runs` gave to `output`, whole or not at all, and return `output`.

    table: JSON `{"columns": [...], "rows": [{...}]}` shown instead of the table made from the runs.
    strips: .npz with `frames` uint8 (K, T, h, w, 3), `video_ids` (K,) and `labels` (K,), indices into
    the first run's classes (or into an array `classes` of the file): videos shown frame by frame.
    costs and examples: what `vsn.report.illustrate` found.
    """
    sections = [
        ("results", "Results", results_section(runs, table=table, costs=costs or {})),
        ("curves", "Learning curves", curves_section(runs)),
        ("time", "Temporal reliance", order_section(runs)),
        ("classes", "Accuracy by class", classes_section(runs)),
        ("confusion", "Confusion", confusion_section(runs)),
        ("calibration", "Calibration", calibration_section(runs)),
        ("examples", "Best and worst videos", examples_section(runs, examples)),
    ]
    if strips is not None:
        sections.append(("videos", "Videos", strips_section(runs, Path(strips))))
    page = _page(title, summary=summary_sentence(runs), runs=runs, sections=sections)
    write_text(Path(output), page)
    return Path(output)


def _page(title: str, *, summary: str, runs: Sequence[Run], sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole document; `sections` are (id, heading, HTML)."""
    written = datetime.now(UTC)
    links = "".join(f'<a href="#{key}">{parts.text(heading)}</a>' for key, heading, _ in sections)
    body = "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-h">'
        f'<h2 id="{key}-h">{parts.text(heading)}</h2>\n{inner}\n</section>'
        for key, heading, inner in sections
    )
    # The policy makes the promise of one self-contained file hold in the browser too.
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{parts.text(title)}</title>
<style>
{_static("report.css")}{_toggle_css(len(runs))}
</style>
</head>
<body>
<header>
<h1>{parts.text(title)}</h1>
<p class="summary">{parts.text(summary)}</p>
<p class="date"><time datetime="{written:%Y-%m-%dT%H:%MZ}">{written:%d %B %Y, %H:%M} UTC</time></p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<footer>{_versions([(run.name, run.versions) for run in runs])}</footer>
<script>
{_static("report.js")}
</script>
</body>
</html>
"""


def _toggle_css(num_runs: int) -> str:
    """Rules that hide a run's curves while its box in the legend is not ticked; no script needed."""
    return "".join(f"\n.curves:has(#show-{i}:not(:checked)) .line-{i}{{display:none}}" for i in range(num_runs))


def _versions(versions: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    groups: dict[str, list[str]] = {}
    for name, found in versions:
        line = " \u00b7 ".join(f"{key} {value}" for key, value in found.items()) or "no versions recorded"
        groups.setdefault(line, []).append(name)
    lines = "".join(
        f"<dt>{parts.text(parts.listed(names))}</dt><dd>{parts.text(line)}</dd>" for line, names in groups.items()
    )
    return f"<h2>Versions</h2><dl>{lines}</dl>"


def _static(name: str) -> str:
    return (files("vsn") / "static" / name).read_text(encoding="utf-8")
