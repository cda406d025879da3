"""What README and the pages of docs/ tell a reader to type is understood: every command by the real parser, all Python run.

A block with `<!-- not run: reason -->` above it is left alone.
"""

import functools
import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import tyro

from tests.helpers.docs_pages import PAGES, ROOT, Block, blocks, commands, help_page, read
from vsn import cli
from vsn.cli import data, flow, hub, recipes
from vsn.cli.ablate import AblateCommand
from vsn.cli.bench import BenchCommand
from vsn.cli.data import DoctorCommand, PackCommand
from vsn.cli.flow import ExtractCommand
from vsn.cli.settings import has_recipe, parse_command, parse_settings
from vsn.cli.training import TrainCommand
from vsn.models import create_model, list_models

WITH_SETTINGS = {
    ("train",): TrainCommand,
    ("ablate",): AblateCommand,
    ("data", "doctor"): DoctorCommand,
    ("data", "pack"): PackCommand,
    ("flow", "extract"): ExtractCommand,
}
GROUPS = {"data": data, "flow": flow, "hub": hub, "recipe": recipes}
# Of somebody else's, or of a shell; python's scripts and pip's extras are looked up.
OTHERS = {".", "curl", "python", "python3", "pip", "torchrun"}
FOREIGN_OPTIONS = {
    "--nproc-per-node",
    "--nnodes",
    "--standalone",
    "--rdzv-backend",
    "--rdzv-endpoint",
}
# Pages whose Python other tests run, with files that it needs.
RUN_ELSEWHERE = {
    "README.md": "tests/docs/test_house.py",
    "api.md": "tests/inference/test_docs_api.py",
    "bench.md": "tests/docs/test_docs_bench.py",
    "evaluation.md": "tests/docs/test_docs_evaluation.py",
    "export.md": "tests/docs/test_docs_export.py",
    "stream.md": "tests/stream/test_stream.py",
}
SHELL = [block for block in blocks("sh") if not block.not_run]
TYPED = [(block, words) for block in SHELL for words in commands(block)]


def vsn_words(words: list[str]) -> list[str] | None:
    """What follows `vsn` of a command that runs it, under torchrun or alone."""
    if Path(words[0]).name == "vsn":
        return words[1:]
    for at in range(len(words) - 1):
        if words[at : at + 2] == ["-m", "vsn"]:
            return words[at + 2 :]
    return None


OURS = [(block, found) for block, words in TYPED if (found := vsn_words(words)) is not None]


def parse_only(function: Callable[..., None], arguments: list[str], prog: str) -> None:
    """Parse the arguments of a verb's function, and do not run it."""

    @functools.wraps(function)
    def stub(*values: object, **named: object) -> None:
        inspect.signature(function).bind(*values, **named)

    tyro.cli(stub, args=arguments, prog=prog)


def function_of(verb: str, inner: str) -> Callable[..., None]:
    """The function of a verb, or of a verb of a group."""
    room: ModuleType = GROUPS.get(verb, cli)
    names = (inner, f"{verb}_{inner}") if verb in GROUPS else ({"eval": "evaluate"}.get(verb, verb),)
    found = [getattr(room, name) for name in names if inspect.isfunction(getattr(room, name, None))]
    assert found, f"vsn {verb} {inner}: no function of {room.__name__} has this name; say which it is here"
    return found[0]


def understand(words: list[str]) -> None:
    """Parse what follows `vsn` as the command line does."""
    if words == ["--version"]:
        return
    verb, inner = words[0], words[1] if words[0] in GROUPS else ""
    key = (verb, inner) if inner else (verb,)
    rest, prog = words[len(key) :], f"vsn {' '.join(key)}"
    if "..." in rest:
        assert key in WITH_SETTINGS or function_of(verb, inner)
    elif verb == "bench":
        names = tyro.cli(BenchCommand, args=rest, prog=prog).names
        known = set(list_models())
        assert [name for name in names if "/" not in name and name.partition("@")[0] not in known] == []
    elif key in WITH_SETTINGS:
        command, settings = parse_command(WITH_SETTINGS[key], rest, prog)
        if key == ("train",) and not command.resume:
            assert has_recipe(command.recipe)
        if getattr(command, "show", None) or getattr(command, "merge", None) or getattr(command, "verify", None):
            assert not settings
            return
        recipe = parse_settings(command.recipe, settings, rest, prog)
        assert recipe.model.name in list_models()
    else:
        parse_only(function_of(verb, inner), rest, prog)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipe of one's own that docs/training.md shows."""
    (own,) = blocks("toml")
    (tmp_path / "mine.toml").write_text(own.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands():
    assert len(OURS) > 100
    assert {words[0] for _, words in OURS} >= {
        "demo",
        "train",
        "eval",
        "predict",
        "export",
        "serve",
        "hub",
        "ablate",
    }


@pytest.mark.parametrize(("block", "words"), OURS, ids=lambda value: str(value) if isinstance(value, Block) else "")
def test_commands_are_understood(block: Block, words: list[str], reader: Path):
    try:
        understand(words)
    except SystemExit as stop:
        pytest.fail(f"{block}: `vsn {' '.join(words)}` is refused ({stop.code})")


@pytest.mark.parametrize(
    "wrong", ["eval runs/a --spilt test", "train finetun", "train demo --model.nam x", "data heal"]
)
def test_wrong_commands_are_noticed(wrong: str, reader: Path):
    with pytest.raises((SystemExit, ValueError, AssertionError)):
        understand(wrong.split())


def test_other_programs_are_known():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for block, words in TYPED:
        program = Path(words[0]).name or words[0]
        assert program in OTHERS | {"vsn"}, f"{block}: {words[0]}; a block of other programs needs `not run`"
        for named in re.findall(r"\[([\w,]+)\]", " ".join(words)) if program == "pip" else ():
            assert set(named.split(",")) <= extras.keys(), f"{block}: extras {named}"
        if program.startswith("python") and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), f"{block}: {words[1]}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_scripts_and_files_that_a_page_names_are_there(path: Path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:benchmarks|results|recipes|tests|src|docs)/[\w/.-]+\.(?:py|json|toml|md))\b", text))
    assert sorted(name for name in named if "NAME" not in name and not (ROOT / name).exists()) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_models_that_a_page_names_are_there(path: Path):
    named = set(re.findall(r"`((?:vsn|tsm|tsn|m?trn|c2d|i3d|slowfast)_[a-z][a-z0-9_]*)`", path.read_text("utf-8")))
    assert sorted(named - set(list_models())) == []


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}))
def test_python_runs(page: str, reader: Path, capsys: pytest.CaptureFixture[str]):
    if page in RUN_ELSEWHERE:
        text = (ROOT / RUN_ELSEWHERE[page]).read_text(encoding="utf-8")
        assert page in text, f"{RUN_ELSEWHERE[page]} is to run {page}"
        assert "exec(" in text
        return
    names: dict[str, object] = {}
    if page == "report.md":  # speaks of the reader's model and clip
        model = create_model("vsn_resnet14_tiny", num_classes=5, num_frames=4).eval()
        clip = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
        names = {"model": model, "clip": clip, "frames": clip[0].permute(0, 2, 3, 1).numpy()}
    ran = [block for block in blocks("python") if block.page == page and not block.not_run]
    for block in ran:
        text = block.text.replace("vsn_resnet18", "vsn_resnet14_tiny")  # seconds less
        exec(compile(text, str(block), "exec"), names)
    said = " ".join(capsys.readouterr().out.split())
    for block in ran:  # a comment after a print is what it prints, up to dots
        for shown in re.findall(r"(?m)^(?:print\(.*\)  |)# (\[\[.*|torch\.Size.*|True)$", block.text):
            assert shown.partition(", ...")[0].rstrip("]") in said, f"{block}: {shown}"


def test_json_and_toml_are_whole():
    for block in blocks("json"):
        json.loads(block.text)
    for block in blocks("toml"):
        tomllib.loads(block.text)


def test_what_is_not_run_says_why():
    stated = re.findall(r"<!-- not run: (.*?) -->", "".join(read(path.name) for path in PAGES))
    held = [block.not_run for language in ("sh", "python") for block in blocks(language) if block.not_run]
    assert len([one for one in stated if one != "reason"]) == len(held), "a reason stands right above a block"


def test_options_in_prose_exist():
    known = set(re.findall(r"--[a-z][\w.-]*", help_page())) | FOREIGN_OPTIONS
    for path in PAGES:
        code = re.findall(r"`+[^`\n]*(?:\n[^`\n]+)?`+", path.read_text(encoding="utf-8"))
        quoted = " ".join(words for words in code if "benchmarks/" not in words)
        used = {option.rstrip(".-") for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", quoted)}
        assert sorted(used - known) == [], path.name
