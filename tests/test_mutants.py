"""The scripts in benchmarks/ that say how much the tests run and notice."""

import tomllib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__(name)


MUTATED = """
def x_f__mutmut_orig(a, b):
    if a < b:
        raise ValueError('less')
    return a

def x_f__mutmut_1(a, b):
    if a <= b:
        raise ValueError('less')
    return a

def x_f__mutmut_2(a, b):
    if a < b:
        raise ValueError('XXlessXX')
    return a

def x_f__mutmut_3(a, b):
    if a < b:
        raise ValueError(None)
    return a

def x_g__mutmut_orig(a=1):
    return a

def x_g__mutmut_1(a=2):
    return a
"""


def test_mutants_are_read_drawn_and_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    mutants = script(monkeypatch, "mutants")
    (tmp_path / "src" / "vsn").mkdir(parents=True)
    (tmp_path / "src" / "vsn" / "made.py").write_text(MUTATED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mutants, "TESTS", {"vsn.made": "test_made"})
    one, two, three, four = (
        f"vsn.made.x_{name}" for name in ("f__mutmut_1", "f__mutmut_2", "f__mutmut_3", "g__mutmut_1")
    )
    assert mutants.mutants_of("vsn.made") == [one, two, three, four]
    assert [mutants.only_text(name) for name in (one, two, three, four)] == [False, True, False, False]
    assert mutants.change(one).splitlines() == ["-if a < b:", "+if a <= b:"]
    assert mutants.change(four).splitlines() == ["-def f(a=1):", "+def f(a=2):"]
    assert mutants.draw(5, seed=0).keys() == {one, three, four}
    assert len(mutants.draw(1, seed=0)) == 1
    found = mutants.summary({one: False, three: True}, {one: "a is never b"})["vsn.made"]
    counts = {"mutants": 4, "only_text": 1, "sampled": 2, "killed": 1, "equivalent": 1, "survived": 0}
    assert found == {**counts, "alive": [{"change": mutants.change(one), "equivalent": "a is never b"}]}
    assert mutants.summary({one: False, three: True}, {})["vsn.made"]["survived"] == 1


def test_each_mutant_meets_tests_that_exist(monkeypatch: pytest.MonkeyPatch):
    mutants = script(monkeypatch, "mutants")
    root = BENCHMARKS.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    mutated = {path.removeprefix("src/").removesuffix(".py").replace("/", ".") for path in settings["only_mutate"]}
    assert mutated == set(mutants.TESTS)
    files = {f"tests/{name}.py" for names in mutants.TESTS.values() for name in names.split()}
    assert [path for path in (*files, *settings["only_mutate"]) if not (root / path).is_file()] == []


def test_coverage_is_summed_by_room(monkeypatch: pytest.MonkeyPatch):
    covered = script(monkeypatch, "covered")
    files = {
        path: {"summary": {"num_statements": of, "covered_lines": ran}}
        for path, of, ran in (
            ("src/vsn/__init__.py", 4, 4),
            ("src/vsn/data/flow/values.py", 30, 29),
            ("src/vsn/data/__init__.py", 0, 0),
            ("src/vsn/data/views.py", 10, 10),
            ("src/vsn/ops.py", 6, 3),
        )
    }
    assert [tuple(row.values()) for row in covered.by_room(files)] == [
        ("vsn", 4, 4, 100.0),
        ("vsn.data", 40, 39, 97.5),
        ("vsn.ops", 6, 3, 50.0),
        ("total", 50, 46, 92.0),
    ]
