"""Write the page of all commands from what the command line says of itself.

python docs/scripts/command_page.py > cli.md
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Iterator

from vsn import cli

WIDTH = 84
RECIPE = "finetune"
HEAD = """# Commands

What `vsn COMMAND --help` prints, written when this site was built. Commands that take the settings of a recipe
(`train`, `ablate`, `data doctor`, `data pack`, `flow extract`) take all of [the last section](#settings-of-a-recipe).
"""


def help_of(*verb: str) -> str:
    """What a verb prints for `--help`, 84 columns wide and without colors."""
    before = {key: os.environ.get(key) for key in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM")}
    os.environ.update(COLUMNS=str(WIDTH), NO_COLOR="1", TERM="dumb")
    os.environ.pop("FORCE_COLOR", None)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
            cli.main([*verb, "--help"])
    finally:
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
    return said.getvalue()


def verbs(*group: str) -> Iterator[tuple[str, ...]]:
    """Every verb, those of a group (`data pack`) too, in the order of the help."""
    usage = " ".join(help_of(*group).split("\n\n")[0].split())
    found = re.fullmatch(rf"usage: {' '.join(('vsn', *group))} \[-h\] \{{([\w,-]+)\}}", usage)
    if found is None:
        yield group
        return
    for name in found[1].split(","):
        yield from verbs(*group, name)


def plain(text: str) -> str:
    """A help text with its groups of options headed by a line instead of ruled off, and its long lines wrapped."""
    lines = re.sub(r"(?m)^ (\S.*?) *\n -+ *$", r"\1:", text).strip().splitlines()
    return "\n".join(line.rstrip() if len(line.rstrip()) <= WIDTH else textwrap.fill(line, WIDTH) for line in lines)


def page() -> str:
    """The whole page, as Markdown."""
    parts = [f"## vsn {' '.join(verb)}\n\n```text\n{plain(help_of(*verb))}\n```\n" for verb in verbs()]
    settings = plain(help_of("train", RECIPE))
    parts.append(
        "## Settings of a recipe\n\n"
        f"What `vsn train {RECIPE} --help` prints; the defaults are those of `{RECIPE}`.\n\n```text\n{settings}\n```\n"
    )
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    print(page(), end="")
