"""Print tables and lines in a terminal."""

from __future__ import annotations

import shlex
import textwrap
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


def join_labels(labels: Sequence[str]) -> str:
    """Join labels by commas, or by semicolons where a label holds a comma.

    >>> join_labels(["wave", "clap"]), join_labels(["pushing, slowly", "clap"])
    ('wave, clap', 'pushing, slowly; clap')
    """
    return ("; " if any("," in label for label in labels) else ", ").join(labels)


def print_line(console: Console, line: str) -> None:
    """Print text without markup, highlighting and wrapping, which would break paths."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def print_note(console: Console, text: str) -> None:
    """Print prose without markup; in a terminal it is wrapped between words, indented as it begins.

    Not for commands to copy, whose lines would break: `print_line` prints these.
    """
    if console.is_terminal:
        indent = text[: len(text) - len(text.lstrip())]
        text = textwrap.fill(
            text, console.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    print_line(console, text)


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
