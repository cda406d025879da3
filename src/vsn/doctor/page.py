"""A diagnosis as one page on a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vsn.doctor.diagnosis import Diagnosis, Spread
from vsn.doctor.evidence import SEVERITIES, Finding, counted

ITEMS_SHOWN = 4
NEARLY_EVEN = 0.95
"""Effective classes over classes, from which on their sizes are not worth a number."""
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def print_page(diagnosis: Diagnosis, console: Console) -> None:
    """Print findings, errors first, then the facts. Names are shown as they are, never as markup."""
    console.print(_headline(diagnosis))
    for finding in diagnosis.findings:
        console.print()
        console.print(_shown(finding))
    if diagnosis.splits:
        console.print()
        console.print(_split_table(diagnosis))
        console.print()
        console.print(_facts(diagnosis))


def _headline(diagnosis: Diagnosis) -> Text:
    numbers = Counter(finding.severity for finding in diagnosis.findings)
    said = [counted(numbers[severity], severity) for severity in SEVERITIES if numbers[severity]]
    text = Text(overflow="fold")
    text.append(diagnosis.root, style="bold")
    text.append(f" ({diagnosis.source}): {', '.join(said) or 'nothing found'}.\n")
    if not diagnosis.healthy:
        text.append("Mend the errors before training.", style=_STYLES["error"])
    elif numbers["warning"]:
        text.append("Fit to train on; look at the warnings.", style=_STYLES["warning"])
    else:
        text.append("Fit to train on.", style="bold green")
    return text


def _shown(finding: Finding) -> Table:
    """Severity on the left; message, the next few items and what to do on the right."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style=_STYLES[finding.severity], no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(finding.severity.upper().ljust(7), Text(finding.message))
    for item in finding.items[1:ITEMS_SHOWN]:
        table.add_row("", Padding(Text(item, overflow="fold"), (0, 0, 0, 2)))
    more = len(finding.items) - ITEMS_SHOWN
    if more > 0:
        table.add_row("", Padding(f"and {more:,} more", (0, 0, 0, 2)))
    table.add_row("", Text(f"To do: {finding.advice}", style="green"))
    return table


def _split_table(diagnosis: Diagnosis) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("split", overflow="fold", max_width=16)
    for name in ("videos", "checked", "bad", "classes", "frames", "a second", "short side"):
        table.add_column(name, justify="right", overflow="fold")
    for split in diagnosis.splits:
        table.add_row(
            Text(split.name),
            f"{split.num_videos:,}",
            f"{split.num_checked:,}",
            Text(f"{split.num_bad:,}", style="bold red" if split.num_bad else ""),
            f"{split.num_classes:,}" if diagnosis.classes else "-",
            _range(split.frames),
            _range(split.frames_per_second),
            _range(split.short_side),
        )
    return table


def _range(spread: Spread | None) -> str:
    """`15-143`, or the one number."""
    if spread is None:
        return "-"
    least, most = f"{spread.least:.3g}", f"{spread.most:.3g}"
    if spread.most >= 1000:
        least, most = f"{spread.least:,.0f}", f"{spread.most:,.0f}"
    return least if least == most else f"{least}-{most}"


def _facts(diagnosis: Diagnosis) -> Table:
    """One line a subject."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for subject, text in (
        ("Classes", _classes_text(diagnosis)),
        ("Flips", _flip_text(diagnosis)),
        ("Frame files", _names_text(diagnosis)),
        ("Flow", diagnosis.flow.removeprefix("Flow: ")),
        ("Loading", _loading_text(diagnosis)),
        ("Checked", _checked_text(diagnosis)),
    ):
        if text:
            table.add_row(subject, Text(text))
    return table


def _classes_text(diagnosis: Diagnosis) -> str:
    facts = diagnosis.classes
    if facts is None:
        return ""
    videos = facts.videos
    if videos.least == videos.most:
        return f"{facts.num_classes:,} to train, {videos.most:,.0f} videos each."
    text = (
        f"{facts.num_classes:,} to train, with {videos.least:,.0f} ({facts.smallest}) to {videos.most:,.0f} "
        f"({facts.largest}) videos, {videos.middle:,g} in the middle"
    )
    if facts.effective > NEARLY_EVEN * facts.num_classes:
        return f"{text}; nearly even."
    return f"{text}; as uneven as if there were {facts.effective:.3g} of one size."


def _flip_text(diagnosis: Diagnosis) -> str:
    if not diagnosis.proposed_flip:
        return ""
    same = diagnosis.flip == diagnosis.proposed_flip
    proposed = "as proposed" if same else f'proposed is "{diagnosis.proposed_flip}"'
    return f'data.flip is "{diagnosis.flip}", {proposed}. {diagnosis.flip_reason}'


def _names_text(diagnosis: Diagnosis) -> str:
    return "; ".join(f"{name} ({counted(n, 'folder')})" for name, n in diagnosis.frame_names.items())


def _loading_text(diagnosis: Diagnosis) -> str:
    loading = diagnosis.loading
    if loading is None:
        return ""
    text = (
        f"{loading.clips_per_second:.3g} clips a second with {counted(loading.num_workers, 'worker')}, measured on "
        f"{loading.num_clips:,}: {_duration(loading.epoch_seconds)} an epoch"
    )
    gpu = diagnosis.gpu_videos_per_second
    return f"{text}." if gpu is None else f"{text}, where the GPU takes {_duration(loading.epoch_clips / gpu)}."


def _checked_text(diagnosis: Diagnosis) -> str:
    what = "every frame" if diagnosis.thorough else f"the {diagnosis.num_frames} frames of a clip and the last frame"
    of = "every video" if diagnosis.sample is None else f"{diagnosis.sample:,} videos of each split"
    return f"{what} of {of}, names and copies of all; {_duration(diagnosis.seconds)} in all."


def _duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
