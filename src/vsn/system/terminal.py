"""Print tables, percentages and intervals in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def shell_quote(path: object) -> str:
    """Quote a path for the shell, where a message shows a command to copy.

    >>> shell_quote("runs/a"), shell_quote("my runs/a")
    ('runs/a', "'my runs/a'")
    """
    return shlex.quote(str(path))


def print_line(console: Console, line: str) -> None:
    """Print text without markup, highlighting and wrapping, which would break paths."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def make_table(columns: Sequence[str], *, title: str = "", left: Collection[str] = (), ruled: bool = True) -> Table:
    """Make a table whose first column, and those in ``left``, hold text; the others hold numbers, aligned right.

    Args:
        columns: headings.
        title: shown above; never read as markup.
        left: further columns of text.
        ruled: draw borders; without them more columns fit.
    """
    table = Table(title=escape(title) or None)
    if not ruled:
        table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
    for index, column in enumerate(columns):
        # Where the terminal is narrow, rich folds the widest columns first. Never `no_wrap`, which cuts off digits.
        table.add_column(column, justify="left" if index == 0 or column in left else "right", overflow="fold")
    return table


def percent(share: float | None) -> str:
    """Format a share of 1 as percent with one decimal: 0.25 as "25.0%"; None as ""."""
    return "" if share is None else f"{share:.1%}"


def percent_interval(shares: Sequence[float]) -> str:
    """Format an interval of shares of 1: "20.0% to 30.0%"."""
    return f"{shares[0]:.1%} to {shares[1]:.1%}"


def points(share: float) -> str:
    """Format a difference of shares in percentage points with its sign: 0.015 as "+1.5"."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def short_count(count: float) -> str:
    """Format a count with three digits and K, M, G or T: 24_300_000 as "24.3M"."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            value = count / size
            return f"{value:.{0 if value >= 100 else 1}f}{unit}"
    return f"{count:.0f}"
