"""Write the page of `vsn compare`: which scores are better, by how much, in which classes and on which videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vsn.report.behind import videos_behind
from vsn.report.differences import Named, compare_with_best, difference_sentence, differences_section
from vsn.report.page import Section, write_sections
from vsn.report.render import join_names, num_videos, percent, percent_range, render
from vsn.scores.compare import VideoChange
from vsn.scores.metrics import summarize

VIDEOS_SHOWN = 100
"""Videos of each side, won and lost, that are listed."""


def write_comparison(
    named: Sequence[Named], output: Path, *, notes: Sequence[str] = (), command: Sequence[str] = ()
) -> Path:
    """Write a page that compares the best of several scores with the others, and return ``output``.

    Args:
        named: two or more, of the same videos and classes in the same order: `vsn.scores.match.match_scores`.
        output: the HTML file, written atomically.
        notes: sentences below its head, such as how many videos were left out.
        command: the command that writes this page, shown at its end.

    Raises:
        ScoresError: videos without a known label.
    """
    pairs = compare_with_best(named)
    summaries = {one.name: summarize(one.scores) for one in named}
    best = summaries[pairs[0].best]
    changes = [(pair, _side(pair.comparison.changed, "won"), _side(pair.comparison.changed, "lost")) for pair in pairs]
    text = f"{percent(best.top1)} (95% interval {percent_range(best.top1_interval)})"
    return write_sections(
        output,
        title=f"{join_names([one.name for one in named])} compared",
        summary=f"{pairs[0].best} has the best top-1 on {num_videos(best.num_videos)}: {text}. {difference_sentence(pairs)}",
        overview=render("scores.html", summaries=summaries, notes=notes),
        sections=[
            Section("differences", "Differences", differences_section(pairs, named)),
            Section("changed", "Videos that changed", render("changes.html", changes=changes, limit=VIDEOS_SHOWN)),
        ],
        commands=[command] if command else [],
        behind=videos_behind(named),
    )


def _side(changed: Sequence[VideoChange], side: str) -> list[VideoChange]:
    return [video for video in changed if video["side"] == side]
