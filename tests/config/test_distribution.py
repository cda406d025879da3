"""The distribution is found under the name that messages and pages tell users to install."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import vsn
from vsn.config.distribution import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[2]
PROJECT_FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PROJECT_FILE["project"]


def test_the_version_is_that_of_the_distribution() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert vsn.__version__ == version(DISTRIBUTION)


def test_every_install_command_names_the_distribution_and_an_extra() -> None:
    texts = [(ROOT / "README.md").read_text()]
    for folder, suffix in (("src", ".py"), ("src", ".html"), ("docs", ".md"), ("docs", ".py"), ("benchmarks", ".py")):
        texts += [path.read_text() for path in (ROOT / folder).rglob(f"*{suffix}")]
    text = "\n".join(texts)
    # ``pip install "NAME[EXTRAS]"``, a mention such as ``vsn[NAME]``, and the calls that build a command.
    named = re.findall(r"\b(vsn[\w-]*)\[([a-z][a-z,]*)\]", text)
    called = re.findall(r"install_command\([\"'](\w+)[\"']\)", text)
    assert {name for name, _ in named} == {DISTRIBUTION}
    assert not re.search(r"pip install [\"']?vsn\b(?!-video)", text)
    extras = {extra for _, several in named for extra in several.split(",")} | set(called)
    assert {"serve", "export", "flow"} <= extras
    assert extras <= set(PROJECT["optional-dependencies"])
    assert install_command("serve") == 'pip install "vsn-video[serve]"'


def test_the_source_distribution_has_all_that_its_tests_read() -> None:
    include = PROJECT_FILE["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    made = {"PKG-INFO", "build", "dist", "runs", "site", "mutants"}  # by builds, tests and users
    there = {
        path.name for path in ROOT.iterdir() if not path.name.startswith(".") and not path.name.startswith("vsn-demo")
    }
    assert there - made == {name.removeprefix("/") for name in include} | {"pyproject.toml"}
