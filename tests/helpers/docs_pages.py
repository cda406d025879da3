"""README and the pages of docs/, taken apart: fenced blocks, and the commands in them."""

import functools
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"(?ms)^(?:<!-- not run: ([^\n]+?) -->\n)?```(\w*)\n(.*?)^```$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `not_run` is the reason why it is not, where the page states one."""

    page: str
    line: int
    language: str
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(name: str) -> str:
    return (ROOT / ("" if name == "README.md" else "docs") / name).read_text(encoding="utf-8")


@functools.cache
def script(name: str) -> ModuleType:
    """A module of docs/scripts, which are no package."""
    folder = str(ROOT / "docs" / "scripts")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


@functools.cache
def help_page() -> str:
    """The page of all commands, from their help."""
    return script("command_page").page()


def blocks(language: str) -> Iterator[Block]:
    """Every block of a language, of all pages."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n```") % 2 == 0, f"{path}: a fence is not closed"
        for found in _FENCE.finditer(text):
            if found[2] == language:
                line = text.count("\n", 0, found.start(3)) + 1
                yield Block(path.name, line, language, found[3], found[1] or "")


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block as words: comments and redirections away, `a && b` apart."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield words[: words.index(">")] if ">" in words else words
                words = []
