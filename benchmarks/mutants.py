"""Mutation testing of what figures rest on: a sample of mutmut's mutants, each with the tests of its file.

    mutmut run --max-children 1             # makes ./mutants; may be stopped when it begins to run tests
    cd mutants
    python ../benchmarks/mutants.py try tried.jsonl --a-file 30 --seed 0
    python ../benchmarks/mutants.py write ../results/mutation-cpu.json tried.jsonl judged.json

`try` collects the tests once and forks for each mutant, so that one costs a fraction of a second; it goes on where it
was stopped, and tries the files by turns. Mutants in which nothing but the text of strings differs, most of it of
messages, are not drawn. `judged.json` maps the names of survivors that no test can tell from the code to why not.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import json
import os
import random
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

TESTS = {
    "vsn.ops": "test_ops", "vsn.models.temporal": "models/test_temporal", "vsn.data.sampling": "data/test_sampling",
    "vsn.data.views": "data/test_views", "vsn.data.transforms": "data/test_transforms data/test_views",
    "vsn.data.augment": "data/test_augment", "vsn.data.flow.values": "data/test_flow",
    "vsn.engine.fuse": "engine/test_fuse", "vsn.engine.match": "engine/test_match",
    "vsn.engine.intervals": "engine/test_intervals engine/test_scores", "vsn.engine.scores": "engine/test_scores",
    "vsn.engine.windows": "engine/test_windows",
}  # fmt: skip
"""Mutated modules, and the files of tests that a mutant of each meets."""
SLOW = "compiles_without or exports_for_any or gradients_agree or resnext_forced"
"""Tests that would take longer than all others."""
EXAMPLES = 20
"""Of a property, so that a mutant costs seconds; the suite draws more."""


class Mutant(NamedTuple):
    """A mutant: its name, its module, the lines that differ, and whether nothing but strings do."""

    name: str
    module: str
    change: str
    only_text: bool


def mutants_of(module: str) -> Iterator[Mutant]:
    """All that mutmut made of a module, in its order."""
    tree = ast.parse(Path("src", *module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for name, function in functions.items():
        stem, mark, number = name.rpartition("__mutmut_")
        if not mark or not number.isdigit():
            continue
        codes = [ast.unparse(one).splitlines()[1:] for one in (functions[f"{stem}__mutmut_orig"], function)]
        lines = [line for line in list(difflib.unified_diff(*codes, n=0, lineterm=""))[2:] if line[0] in "-+"]
        bodies = []
        for one in (functions[f"{stem}__mutmut_orig"], function):
            texts = [node for node in ast.walk(one) if isinstance(node, ast.Constant) and type(node.value) is str]
            kept = [(node, node.value) for node in texts]
            for node in texts:
                node.value = ""
            bodies.append(ast.dump(ast.Module(one.body, [])))
            for node, value in kept:
                node.value = value
        yield Mutant(f"{module}.{name}", module, "\n".join(lines), bodies[0] == bodies[1])


def draw(a_file: int, seed: int) -> list[Mutant]:
    """As many mutants of each module, or all where there are fewer; the modules by turns."""
    generator, drawn = random.Random(seed), []
    for module in TESTS:
        found = [one for one in mutants_of(module) if not one.only_text]
        drawn += enumerate(generator.sample(found, min(a_file, len(found))))
    return [one for _, one in sorted(drawn, key=lambda pair: pair[0])]


class Trial:
    """Runs, for each mutant, the tests of its module in a process of its own until one fails."""

    def __init__(self, mutants: list[Mutant], out: Path) -> None:
        self.mutants, self.out = mutants, out

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        hypothesis.settings.register_profile("few", max_examples=EXAMPLES, deadline=None, database=None)
        hypothesis.settings.load_profile("few")
        gc.collect()
        gc.freeze()  # so that forks share the memory of what is imported
        for mutant in self.mutants:
            files = [f"tests/{name}.py" for name in TESTS[mutant.module].split()]
            items = [item for item in session.items if item.nodeid.split("::")[0] in files]
            items.sort(key=lambda item: getattr(item.function, "is_hypothesis_test", False))
            reader, writer = os.pipe()
            if (process := os.fork()) == 0:
                os.environ["MUTANT_UNDER_TEST"] = mutant.name
                os._exit(self.run(items, writer))
            os.close(writer)
            with os.fdopen(reader) as said:
                by = said.read()
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": mutant.name, "code": code, "by": by}) + "\n")
        return True

    def run(self, items: list[Any], writer: int) -> int:
        """0 where no test fails, else 1; whatever else ends the process kills a mutant too."""
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (90, 95))  # a mutant may go on for ever
        for item, following in zip(items, [*items[1:], None], strict=True):
            if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
                os.write(writer, item.nodeid.encode())
                return 1
        return 0


def try_out(options: argparse.Namespace) -> None:
    done = {one["name"] for one in read_tried(options.out)} if options.out.exists() else set()
    mutants = [one for one in draw(options.a_file, options.seed) if one.name not in done]
    files = sorted({f"tests/{name}.py" for one in mutants for name in TESTS[one.module].split()})
    arguments = ["-q", "-p", "no:cacheprovider", "--tb=native", "-k", f"not ({SLOW})", *files]
    raise SystemExit(pytest.main(arguments, plugins=[Trial(mutants, options.out)]))


def read_tried(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


