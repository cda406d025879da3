"""Tables of a terminal."""

import io
from collections import Counter

import pytest
from rich.console import Console

from vsn.system.terminal import make_table


@pytest.mark.parametrize("ruled", [True, False])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_cuts_nothing_off(width: int, ruled: bool):
    columns = ("scores", "weight", "frames", "mult-adds", "top-1", "95% interval", "top-5")
    cells = ("a long name", "0.50", "8", "0.101G", "19.0%", "15.2% to 23.0%", "76.2%")
    table = make_table(columns, ruled=ruled)
    table.add_row(*cells)
    console = Console(file=io.StringIO(), width=width)
    console.print(table, markup=False)
    shown = Counter(letter for letter in console.file.getvalue() if letter.isascii() and not letter.isspace())
    assert shown == Counter("".join((*columns, *cells)).replace(" ", ""))
