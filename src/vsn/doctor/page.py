"""Print a diagnosis in a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vsn.doctor.diagnosis import Diagnosis, Spread
from vsn.doctor.findings import SEVERITIES, Finding
from vsn.system.numbers import counted

ITEMS_SHOWN = 4
NEARLY_EVEN = 0.95
"""Ratio of effective classes to classes above which the classes count as balanced."""
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def print_page(diagnosis: Diagnosis, console: Console) -> None:
    """Print findings, errors first, then statistics."""
    # Text objects throughout: a video named "[bold]x.mp4" must not be read as markup.
    console.print(_headline(diagnosis))
    for finding in diagnosis.findings:
        console.print()
        console.print(_finding_table(finding))
    if diagnosis.splits:
        console.print()
        console.print(_split_table(diagnosis))
        console.print()
        console.print(_statistics(diagnosis))


def _headline(diagnosis: Diagnosis) -> Text:
    numbers = Counter(finding.severity for finding in diagnosis.findings)
    counts = [counted(numbers[severity], severity) for severity in SEVERITIES if numbers[severity]]
    text = Text(overflow="fold")
    text.append(diagnosis.root, style="bold")
    text.append(f" ({diagnosis.source}): {', '.join(counts) or 'no problems'}.\n")
    # Errors are what the exit status reports too.
    if not diagnosis.healthy:
        text.append("Fix the errors before training.", style=_STYLES["error"])
    elif numbers["warning"]:
        text.append("Ready for training; check the warnings.", style=_STYLES["warning"])
    else:
        text.append("Ready for training.", style="bold green")
    return text


def _finding_table(finding: Finding) -> Table:
    """Lay out the severity on the left; message, further items and advice on the right."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style=_STYLES[finding.severity], no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(finding.severity.upper().ljust(7), Text(finding.message))
    # The message has the first item.
    for item in finding.items[1:ITEMS_SHOWN]:
        table.add_row("", Padding(Text(item, overflow="fold"), (0, 0, 0, 2)))
    num_hidden = len(finding.items) - ITEMS_SHOWN
    if num_hidden > 0:
        table.add_row("", Padding(f"and {num_hidden:,} more", (0, 0, 0, 2)))
    if finding.advice:
        table.add_row("", Text(f"To do: {finding.advice}", style="green"))
    return table


def _split_table(diagnosis: Diagnosis) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("split", overflow="fold", max_width=16)
    for name in ("videos", "checked", "bad", "classes", "frames", "fps", "short side"):
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
    """Format as `15-143`, or as one number."""
    if spread is None:
        return "-"
    # .3g writes 12345 as 1.23e+04.
    template = "{:,.0f}" if spread.max >= 1000 else "{:.3g}"
    low, high = template.format(spread.min), template.format(spread.max)
    return low if low == high else f"{low}-{high}"


def _statistics(diagnosis: Diagnosis) -> Table:
    """Lay out one line per subject."""
    flips = ""
    if proposed := diagnosis.proposed_flip:
        advice = "as proposed" if diagnosis.flip == proposed else f'"{proposed}" is proposed'
        flips = f'data.flip is "{diagnosis.flip}", {advice}. {diagnosis.flip_reason}'
    checked = "every frame" if diagnosis.thorough else f"the {diagnosis.num_frames} frames of a clip and the last frame"
    checked += " of every video" if diagnosis.sample is None else f" of {diagnosis.sample:,} videos of each split"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for subject, text in (
        ("Classes", _classes_text(diagnosis)),
        ("Flips", flips),
        ("Frame files", "; ".join(f"{name} ({counted(n, 'folder')})" for name, n in diagnosis.frame_names.items())),
        ("Flow", diagnosis.flow.removeprefix("Flow: ")),
        ("Loading", _loading_text(diagnosis)),
        ("Checked", f"{checked}; names and copies of all videos. Took {_duration(diagnosis.seconds)}."),
    ):
        if text:
            table.add_row(subject, Text(text))
    return table


def _classes_text(diagnosis: Diagnosis) -> str:
    classes = diagnosis.classes
    if classes is None:
        return ""
    videos = classes.videos
    if videos.min == videos.max:
        return f"{classes.num_classes:,} to train, {videos.max:,.0f} videos each."
    # Effective classes: 2 to the entropy of the class sizes.
    balance = (
        "nearly balanced"
        if classes.effective > NEARLY_EVEN * classes.num_classes
        else f"entropy of {classes.effective:.3g} equally large classes"
    )
    return (
        f"{classes.num_classes:,} to train, with {videos.min:,.0f} ({classes.smallest}) to {videos.max:,.0f} "
        f"({classes.largest}) videos, median {videos.median:,g}; {balance}."
    )


def _loading_text(diagnosis: Diagnosis) -> str:
    loading = diagnosis.loading
    if loading is None:
        return ""
    text = (
        f"{loading.clips_per_second:.3g} clips per second with {counted(loading.num_workers, 'worker')}, measured on "
        f"{loading.num_clips:,}: {_duration(loading.epoch_seconds)} per epoch"
    )
    gpu = diagnosis.gpu_videos_per_second
    return f"{text}." if gpu is None else f"{text}; the GPU needs {_duration(loading.epoch_clips / gpu)}."


def _duration(seconds: float) -> str:
    """Format as `12 s`, `3 min` or `2.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
