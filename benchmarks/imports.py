"""What a start costs: `import vsn`, `vsn --help` and the first model, and the room an environment takes.

    python benchmarks/imports.py OUT.json NAME=PYTHON [NAME=PYTHON ...] [--rounds 5]

Each PYTHON is the interpreter of an environment in which vsn is installed: one without extras and one with them, for
example. Every start is a process of its own, and the environments take turns. Processor time is user and system time of
that process, which other processes of a busy machine hardly change; seconds are those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from vsn.system.files import write_json

STARTS = {
    "python": ["-c", "pass"],
    "import vsn": ["-c", "import vsn"],
    "vsn --help": ["-m", "vsn", "--help"],
    "vsn.create_model": ["-c", "import vsn; vsn.create_model"],
}
"""What is started, by what it is called; each row holds the start of Python too."""

FACTS = """
import json, sys
from importlib.metadata import distribution, distributions
from pathlib import Path
from vsn.runs.metadata import versions

names = sorted({one.metadata["Name"].lower().replace("_", "-") for one in distributions()})
seen = {}
for path in Path(sys.prefix).rglob("*"):
    if path.is_file() and not path.is_symlink():
        seen[path.stat().st_ino] = path.stat().st_size
extras = {}
for line in distribution("vsn").requires or []:
    if "extra ==" in line:
        name = line.split(";")[0].split(">")[0].split("=")[0].strip().lower().replace("_", "-")
        extras.setdefault(line.split("extra ==")[1].strip(" '\\""), set()).add(name)
print(json.dumps({
    "versions": versions(),
    "num_packages": len(names),
    "bytes": sum(seen.values()),
    "extras": sorted(extra for extra, needs in extras.items() if needs <= set(names)),
}))
"""


def alone() -> dict[str, str]:
    """The variables of this process without those that would lend an environment other packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def start(python: str, arguments: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of one process."""
    before = os.times()
    begin = time.perf_counter()
    subprocess.run([python, *arguments], check=True, stdout=subprocess.DEVNULL, env=alone())
    seconds, after = time.perf_counter() - begin, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu


def heaviest(python: str, count: int = 5) -> list[dict[str, Any]]:
    """The modules that `import vsn` spends most time in by themselves, in milliseconds."""
    done = subprocess.run(
        [python, "-X", "importtime", "-c", "import vsn"],
        check=True,
        capture_output=True,
        text=True,
        env=alone(),
    )
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:]]
    rows = [{"module": name.strip(), "ms": int(own) / 1000} for own, _, name in lines]
    return sorted(rows, key=lambda row: -row["ms"])[:count]


def measure(pythons: dict[str, str], rounds: int) -> dict[str, dict[str, dict[str, Any]]]:
    """`{environment: {start: figures}}`, after one start of each that fills the caches."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for what, arguments in STARTS.items():
            for name, python in list(pythons.items())[:: -1 if number % 2 else 1]:
                measured = start(python, arguments)
                if number:
                    found.setdefault((name, what), []).append(measured)
                print(f"round {number}, {name}, {what}: {measured[1]:.2f} s of processor time", flush=True)
    return {
        name: {
            what: {
                "seconds": [round(one[0], 4) for one in found[name, what]],
                "cpu_seconds": [round(one[1], 4) for one in found[name, what]],
                "median": round(median(one[0] for one in found[name, what]), 4),
                "cpu_median": round(median(one[1] for one in found[name, what]), 4),
            }
            for what in STARTS
        }
        for name in pythons
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("environments", nargs="+", metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for one in options.environments:
        if "=" not in one:
            parser.error(f"{one!r} is no environment; write NAME=PYTHON, such as plain=.venv/bin/python.")
    pythons = dict(one.split("=", 1) for one in options.environments)
    load_before = os.getloadavg()
    rows = measure(pythons, options.rounds)
    names = [f"{name}=PYTHON" for name in pythons]
    rest = [word for word in sys.argv[2:] if "=" not in word]
    environments = {}
    for name, python in pythons.items():
        done = subprocess.run([python, "-c", FACTS], check=True, stdout=subprocess.PIPE, text=True, env=alone())
        environments[name] = json.loads(done.stdout) | {"starts": rows[name], "heaviest": heaviest(python)}
    write_json(
        options.out,
        {
            "command": shlex.join(["python", "benchmarks/imports.py", f"results/{options.out.name}", *names, *rest]),
            "date": datetime.now(UTC).date().isoformat(),
            "rounds": options.rounds,
            "load_before": load_before,
            "load_after": os.getloadavg(),
            "environments": environments,
        },
    )
    print(f"{options.out} is written.")


if __name__ == "__main__":
    main()
