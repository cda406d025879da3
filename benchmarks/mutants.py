"""Mutation testing of operations, samplers and scores: run a sample of mutmut's mutants with the tests of their module.

    mutmut run --max-children 1             # creates ./mutants; stop it when it starts to run tests
    cd mutants
    PYTHONPATH=src python ../benchmarks/mutants.py tried.jsonl --per-module 60
    python ../benchmarks/mutants.py tried.jsonl --judged judged.json --write ../results/mutation-cpu.json

The tests are collected once and a process is forked per mutant, which then takes a fraction of a second. A stopped run
resumes. Mutants that only change the text of strings, mostly messages, are not drawn. `judged.json` maps the names of
surviving mutants that are equivalent to the original code to the reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import gc
import json
import os
import random
import resource
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

TESTS = {
    "vsn.ops": "test_ops", "vsn.models.insertion": "models/test_temporal", "vsn.data.sampling": "data/test_sampling",
    "vsn.data.views": "data/test_views", "vsn.data.transforms": "data/test_transforms data/test_views data/test_augment",
    "vsn.data.flow.values": "data/flow/test_flow",
    "vsn.scores.fuse": "scores/test_fuse", "vsn.scores.match": "scores/test_match",
    "vsn.scores.intervals": "scores/test_intervals", "vsn.scores.scores": "scores/test_scores",
    "vsn.scores.metrics": "scores/test_metrics",
    "vsn.stream.grid": "stream/test_windows",
}  # fmt: skip
"""Mutated module -> test files to run."""
SLOW = "compiles_without or exports_for_any or gradients_agree or resnext_forced"
EXAMPLES = 20
"""Examples per property test, a fifth of the default; tests matching `SLOW` are left out."""


@cache
def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    path = Path("src", *module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def mutants_of(module: str) -> list[str]:
    return [f"{module}.{name}" for name in functions_of(module) if name.rpartition("__mutmut_")[2].isdigit()]


def with_original(mutant: str) -> list[ast.FunctionDef]:
    module, _, name = mutant.rpartition(".")
    functions = functions_of(module)
    return [functions[name.rpartition("__mutmut_")[0] + "__mutmut_orig"], functions[name]]


def only_text(mutant: str) -> bool:
    functions = copy.deepcopy(with_original(mutant))
    for node in (node for function in functions for node in ast.walk(function)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return len({ast.dump(one.args) + ast.dump(ast.Module(one.body, [])) for one in functions}) == 1


def change(mutant: str) -> str:
    functions = [ast.FunctionDef("f", one.args, one.body, [], lineno=1) for one in with_original(mutant)]
    before, after = (ast.unparse(one).splitlines() for one in functions)
    lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    return "\n".join(line.replace("    ", "", 1) for line in lines if line[0] in "-+")


def draw(per_module: int, seed: int) -> dict[str, str]:
    """Draw up to `per_module` mutants of each module, alternating between modules; return mutant -> module."""
    generator, drawn = random.Random(seed), []
    for module in TESTS:
        found = [one for one in mutants_of(module) if not only_text(one)]
        drawn += enumerate(generator.sample(found, min(per_module, len(found))))
    return {one: one.rpartition(".")[0] for _, one in sorted(drawn, key=lambda pair: pair[0])}


class Trial:
    """Pytest plugin: for each mutant, run the tests of its module in a forked process until one fails."""

    def __init__(self, mutants: dict[str, str], out: Path) -> None:
        self.mutants, self.out = mutants, out

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        import hypothesis  # pytest warns of plugins that are imported before it

        hypothesis.settings.register_profile("few", max_examples=EXAMPLES, deadline=None, database=None)
        hypothesis.settings.load_profile("few")
        gc.collect()
        gc.freeze()  # forks share the memory of what is imported
        for mutant, module in self.mutants.items():
            files = [f"tests/{name}.py" for name in TESTS[module].split()]
            items = [item for item in session.items if item.nodeid.split("::")[0] in files]
            items.sort(key=lambda item: getattr(item.function, "is_hypothesis_test", False))
            if (process := os.fork()) == 0:
                os.environ["MUTANT_UNDER_TEST"] = mutant
                resource.setrlimit(resource.RLIMIT_CPU, (90, 95))  # some mutants loop forever
                os._exit(any_fails(items))
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"mutant": mutant, "killed": code != 0}) + "\n")
        return True


def any_fails(items: list[Any]) -> bool:
    for item, following in zip(items, [*items[1:], None], strict=True):
        if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
            return True
    return False


def summary(tried: dict[str, bool], judged: dict[str, str]) -> dict[str, Any]:
    """Count per module the mutants, those that only change text, those tried, and their outcomes."""
    found: dict[str, Any] = {}
    for module in TESTS:
        names = [name for name in tried if name.rpartition(".")[0] == module]
        alive = [name for name in names if not tried[name]]
        found[module] = {
            "mutants": len(mutants_of(module)),
            "only_text": sum(map(only_text, mutants_of(module))),
            "sampled": len(names),
            "killed": len(names) - len(alive),
            "equivalent": sum(name in judged for name in alive),
            "survived": sum(name not in judged for name in alive),
            "alive": [{"change": change(name), "equivalent": judged.get(name)} for name in alive],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tried", type=Path, help="JSON lines: outcome per mutant")
    parser.add_argument("--per-module", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judged", type=Path, help="JSON: mutant to why it is equivalent")
    parser.add_argument("--write", type=Path, help="write the results instead of trying mutants")
    options = parser.parse_args()
    rows = map(json.loads, options.tried.read_text().splitlines() if options.tried.exists() else ())
    tried = {one["mutant"]: one["killed"] for one in rows}
    if options.write is None:
        mutants = {k: v for k, v in draw(options.per_module, options.seed).items() if k not in tried}
        files = sorted({f"tests/{name}.py" for module in mutants.values() for name in TESTS[module].split()})
        arguments = ["-q", "-p", "no:cacheprovider", "--tb=native", "-k", f"not ({SLOW})", *files]
        raise SystemExit(pytest.main(arguments, plugins=[Trial(mutants, options.tried)]))
    from vsn.runs.metadata import versions  # imported late: the tests must import the mutated modules first
    from vsn.system.files import write_json

    modules = summary(tried, json.loads(options.judged.read_text()) if options.judged else {})
    keys = ("mutants", "only_text", "sampled", "killed", "equivalent", "survived")
    facts = {
        "command": f"python benchmarks/mutants.py tried.jsonl --per-module {options.per_module} --seed {options.seed}",
        "date": datetime.now(UTC).date().isoformat(),
        "tool": f"mutmut {version('mutmut')}",
        "versions": versions(),
        "seed": options.seed,
        "total": {key: sum(one[key] for one in modules.values()) for key in keys},
        "modules": modules,
    }
    write_json(options.write, facts)
    print(facts["total"])


if __name__ == "__main__":
    main()
