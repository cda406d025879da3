"""What a bug report needs, also where packages are missing or broken."""

import getpass
import json
import os
import platform
import sys
import types
from pathlib import Path

import pytest
import torch

from vsn import cli
from vsn.config.distribution import DISTRIBUTION
from vsn.system.environment import describe_environment


def test_the_facts_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = describe_environment()
    assert facts["python"].startswith(platform.python_version())
    assert facts["torch"].startswith(f"{torch.__version__}, built for ")
    assert facts["extra plot"].startswith("matplotlib ")
    assert {"extra export", "extra serve", "extra flow"} <= set(facts)
    assert not {"extra dev", "extra docs", "extra all"} & set(facts)
    assert "OMP_NUM_THREADS=3" in facts["variables"]


def test_nothing_tells_who_or_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a-secret-value")
    text = json.dumps(describe_environment())
    private = [str(Path.home()), sys.prefix, os.getcwd(), platform.node(), "a-secret-value", f"/{getpass.getuser()}/"]
    assert not [value for value in private if len(value) > 3 and value in text]


@pytest.mark.parametrize("package", ["torch", "torchvision", "av"])
def test_a_package_that_does_not_load_is_described_by_its_error(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise OSError("libcudart.so.13: cannot open shared object file\nsecond line")

    monkeypatch.setitem(sys.modules, package, Broken(package))
    facts = describe_environment()
    described = facts["PyAV" if package == "av" else package]
    assert described.startswith("not usable: OSError: libcudart.so.13: cannot open")
    assert "\n" not in described
    assert facts["extra serve"]


def test_missing_packages_of_an_extra_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "av>=1",
        'uvicorn>=0.1; extra == "serve"',
        'not_there[x]>=2 ; extra == "serve"',
        'a>1; extra == "dev"',
    ]
    monkeypatch.setattr("vsn.system.environment.requires", lambda name: requirements if name == DISTRIBUTION else None)
    extras = {name: value for name, value in describe_environment().items() if name.startswith("extra")}
    assert list(extras) == ["extra serve"]
    assert extras["extra serve"].startswith("uvicorn ")
    assert extras["extra serve"].endswith(", not_there missing")


def test_the_command_prints_a_line_a_fact_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["env"])
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index(line.split(":", 1)[1].strip()) for line in lines}) == 1  # aligned
    cli.main(["env", "--json"])
    assert [line.split(":")[0] for line in lines] == list(json.loads(capsys.readouterr().out))
