"""Write the page of all commands from their help texts.

python docs/scripts/command_page.py > cli.md
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Iterator, Mapping

from vsn import cli

WIDTH = 84
RECIPE = "finetune"
HEAD = """# Commands

The output of `vsn COMMAND --help`, generated with this site. Commands that take the settings of a recipe
(`train`, `ablate`, `folds`, `data doctor`, `data pack`, `flow extract`, `boxes extract`) take all of
[the last section](#settings-of-a-recipe).
"""


def help_of(*command: str) -> str:
    """Return the help of a command, 84 columns wide and without colors."""
    before = {key: os.environ.get(key) for key in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM")}
    os.environ.update(COLUMNS=str(WIDTH), NO_COLOR="1", TERM="dumb")
    os.environ.pop("FORCE_COLOR", None)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
            cli.main([*command, "--help"])
    finally:
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
    return output.getvalue()


def names() -> Iterator[tuple[str, ...]]:
    """Return the words of every command, in the order of the help."""
    for name, command in cli.COMMANDS.items():
        yield from ((name, inner) for inner in command) if isinstance(command, Mapping) else [(name,)]


def plain(text: str) -> str:
    """Simplify a help text: a heading line instead of a rule for each group of options; wrap long lines."""
    lines = re.sub(r"(?m)^ (\S.*?) *\n -+ *$", r"\1:", text).strip().splitlines()
    return "\n".join(line.rstrip() if len(line.rstrip()) <= WIDTH else textwrap.fill(line, WIDTH) for line in lines)


def page() -> str:
    """Return the page, as Markdown."""
    parts = [f"## vsn {' '.join(words)}\n\n```text\n{plain(help_of(*words))}\n```\n" for words in names()]
    settings = plain(help_of("train", RECIPE))
    parts.append(
        "## Settings of a recipe\n\n"
        f"What `vsn train {RECIPE} --help` prints; the defaults are those of `{RECIPE}`.\n\n```text\n{settings}\n```\n"
    )
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    print(page(), end="")
