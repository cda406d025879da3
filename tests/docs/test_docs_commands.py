"""Every command in README and docs/ is accepted by the real parser, and every path, model and option in them exists.

A block with `<!-- not run: reason -->` above it is left out.
"""

import configparser
import functools
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from tests.helpers.docs_pages import PAGES, ROOT, Block, blocks, commands, help_page, read
from vsn import cli
from vsn.cli.settings import parse_recipe_command
from vsn.config import ServeConfig
from vsn.models import list_models

# Programs of others, or of the shell; scripts that python runs and extras that pip installs are looked up.
OTHER_PROGRAMS = {".", "curl", "docker", "python", "python3", "pip", "torchrun"}
OTHER_OPTIONS = {
    "--group", "--local-addr", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-conf", "--rdzv-endpoint",
    "--standalone",
}  # fmt: skip
SHELL = [(block, words) for block in blocks("sh") if not block.not_run for words in commands(block)]


def vsn_arguments(words: list[str]) -> list[str] | None:
    """The arguments of `vsn`, under torchrun too; None for another program."""
    if Path(words[0]).name == "vsn":
        return words[1:]
    at = next((i for i in range(len(words) - 1) if words[i : i + 2] == ["-m", "vsn"]), None)
    return None if at is None else words[at + 2 :]


VSN = [(block, arguments) for block, words in SHELL if (arguments := vsn_arguments(words)) is not None]


def parse(arguments: list[str]) -> None:
    """Parse as `vsn` does, and run nothing."""
    if arguments == ["--version"]:
        return
    name, command = cli.find_command(arguments)
    assert command is not None, f"vsn {arguments[0]} is not a command"
    rest, prog = arguments[len(name.split()) :], f"vsn {name}"
    if "..." in rest:
        return
    if isinstance(command, type):
        options, settings = parse_recipe_command(command, rest, prog)
        if any(getattr(options, key, None) for key in ("show", "merge", "verify")):
            assert settings.arguments == ()
            return
        assert name != "train" or options.recipe or options.resume or "--data.root" in settings.arguments
        assert settings.apply_to(options.recipe).model.name in list_models()
        return
    names = [word.partition("@")[0] for word in tyro.cli(parse_only(command), args=rest, prog=prog) or ()]
    assert [word for word in names if name == "bench" and "/" not in word and word not in list_models()] == []


def parse_only(function: Callable[..., None]) -> Callable[..., object]:
    """A function with the same options, which returns its first argument."""

    @functools.wraps(function)
    def stub(*values: object, **named: object) -> object:
        bound = inspect.signature(function).bind(*values, **named)
        return next(iter(bound.arguments.values()), None) if function is cli.COMMANDS["bench"] else None

    return stub


@pytest.mark.parametrize("page", sorted({block.page for block, _ in VSN}))
def test_commands_parse(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (recipe,) = blocks("toml")  # the recipe mine.toml of docs/training.md
    (tmp_path / "mine.toml").write_text(recipe.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for block, arguments in VSN:
        if block.page == page:
            try:
                parse(arguments)
            except (SystemExit, ValueError) as error:
                pytest.fail(f"{block}: `vsn {' '.join(arguments)}` is refused: {error}")


def test_the_systemd_unit_runs_a_command_and_waits_for_it():
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(ROOT / "docs" / "vsn.service", encoding="utf-8")
    service = unit["Service"]
    _, *arguments = shlex.split(service["ExecStart"])
    parse(arguments)
    assert float(service["TimeoutStopSec"]) > ServeConfig().shutdown_seconds + 5
    # The same site as in the other file.
    assert f"# {shlex.join(['vsn', 'serve', 'RUN', *arguments[2:]])}" in re.sub(" +", " ", read("nginx.conf"))


def test_the_page_shows_the_file_of_nginx():
    (block,) = blocks("nginx")
    assert (block.page, block.text) == ("serve.md", read("nginx.conf"))


def test_the_pages_have_commands():
    assert len(VSN) > 100
    assert {arguments[0] for _, arguments in VSN} >= {"demo", "train", "eval", "predict", "export", "serve", "ablate"}


def test_other_programs_are_known():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for block, words in SHELL:
        program = Path(words[0]).name or words[0]
        assert program in OTHER_PROGRAMS | {"vsn"}, f"{block}: {words[0]}; a block of other programs needs `not run`"
        for names in re.findall(r"\[([\w,]+)\]", " ".join(words)) if program == "pip" else ():
            assert set(names.split(",")) <= extras.keys(), f"{block}: extras {names}"
        if program.startswith("python") and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), f"{block}: {words[1]}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_paths_models_and_options_of_a_page_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    paths = set(re.findall(r"\b((?:benchmarks|results|recipes|tests|src|docs)/[\w/.-]+\.(?:py|json|toml|md))\b", text))
    assert sorted(name for name in paths if "NAME" not in name and not (ROOT / name).exists()) == []
    models = set(re.findall(r"`((?:vsn|tsm|tsn|m?trn|c2d|i3d|slowfast)_[a-z][a-z0-9_]*)`", text))
    assert sorted(models - set(list_models())) == []
    known = set(re.findall(r"--[a-z][\w.-]*", help_page())) | OTHER_OPTIONS
    code = re.findall(r"`+[^`\n]*(?:\n[^`\n]+)?`+", text)
    quoted = " ".join(words for words in code if "benchmarks/" not in words)
    used = {option.rstrip(".-") for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", quoted)}
    assert sorted(used - known) == []


def test_json_and_toml_parse():
    for block in blocks("json"):
        json.loads(block.text)
    for block in blocks("toml"):
        tomllib.loads(block.text)


def test_blocks_that_are_not_run_have_a_reason():
    reasons = re.findall(r"<!-- not run: (.*?) -->", "".join(read(path.name) for path in PAGES))
    marked: list[Block] = [block for language in ("sh", "python") for block in blocks(language) if block.not_run]
    assert len([reason for reason in reasons if reason != "reason"]) == len(marked)


def test_readme_is_true():
    readme = read("README.md")
    (test_command,) = re.findall(r"(?m)^.*python -m pytest$", readme)
    assert test_command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    table = readme.split("## Where things are")[1]
    paths = [path for row in re.findall(r"^\| (`.+?) \|", table, re.M) for path in re.findall(r"`([^`]+)`", row)]
    assert len(paths) > 12
    assert [path for path in paths if not (ROOT / path).exists()] == []
