"""Measure startup: `import vsn`, `vsn --help` and the first model, and the disk space of an environment.

    python benchmarks/imports.py OUT.json NAME=PYTHON [NAME=PYTHON ...] [--rounds 5]
    python benchmarks/imports.py OUT.json NAME=PYTHON ... --predict MODEL.onnx VIDEO   # without PyTorch

Each PYTHON is the interpreter of an environment with vsn installed, such as one without extras and one with them. Every
start is a new process, and the environments alternate. CPU time is user and system time of the process, which other
processes of a busy machine hardly change; seconds are wall time.
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
"""Name -> arguments of Python; each includes the start of Python."""

DESCRIBE = """
import json, sys
from importlib.metadata import distribution, distributions
from pathlib import Path
from vsn.config.distribution import DISTRIBUTION

names = sorted({package.metadata["Name"].lower().replace("_", "-") for package in distributions()})
seen, installer = {}, {}
for path in Path(sys.prefix).rglob("*"):
    if path.is_file() and not path.is_symlink():
        seen[path.stat().st_ino] = path.stat().st_size
        # venv puts these into every environment, and uv into none.
        if any(part.startswith(("pip", "setuptools", "pkg_resources", "_distutils_hack")) for part in path.parts):
            installer[path.stat().st_ino] = path.stat().st_size
extras = {}
for line in distribution(DISTRIBUTION).requires or []:
    if "extra ==" in line:
        name = line.split(";")[0].split(">")[0].split("=")[0].strip().lower().replace("_", "-")
        extras.setdefault(line.split("extra ==")[1].strip(" '\\""), set()).add(name)
try:
    from vsn.runs.metadata import versions

    versions = versions()
except ModuleNotFoundError:  # without PyTorch
    shown = (DISTRIBUTION, "av", "numpy", "pillow", "onnxruntime", "openvino", "fastapi")
    versions = {name: distribution(name).version for name in shown if name in names}
    versions["python"] = sys.version.split()[0]
print(json.dumps({
    "versions": versions,
    "num_packages": len(names),
    "bytes": sum(seen.values()),
    "bytes_of_pip": sum(installer.values()),
    "extras": sorted(extra for extra, needs in extras.items() if needs <= set(names)),
}))
"""


def environment() -> dict[str, str]:
    """Return the environment variables without PYTHONPATH and the like, which would add other packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def start(python: str, arguments: list[str]) -> tuple[float, float, int]:
    """Return wall and CPU seconds of one process, and the most bytes of memory that it had."""
    begin = time.perf_counter()
    process = subprocess.Popen([python, *arguments], stdout=subprocess.DEVNULL, env=environment())
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status  # it has ended: without this, Python warns that it still runs
    seconds = time.perf_counter() - begin
    if status:
        raise RuntimeError(f"{python} {shlex.join(arguments)} ended with status {status}.")
    return seconds, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss


def heaviest(python: str, count: int = 5) -> list[dict[str, Any]]:
    """Return the modules with the largest own time in `import vsn`, in milliseconds."""
    done = subprocess.run(
        [python, "-X", "importtime", "-c", "import vsn"],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:]]
    rows = [{"module": name.strip(), "ms": int(own) / 1000} for own, _, name in lines]
    return sorted(rows, key=lambda row: -row["ms"])[:count]


def measure(pythons: dict[str, str], starts: dict[str, list[str]], rounds: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `{environment: {start: figures}}`, after one start of each as warm-up."""
    times: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for number in range(rounds + 1):
        for label, arguments in starts.items():
            for name, python in list(pythons.items())[:: -1 if number % 2 else 1]:
                measured = start(python, arguments)
                if number:
                    times.setdefault((name, label), []).append(measured)
                print(f"round {number}, {name}, {label}: {measured[1]:.2f} s of CPU time", flush=True)
    return {
        name: {
            label: {
                "seconds": [round(seconds, 4) for seconds, _, _ in times[name, label]],
                "cpu_seconds": [round(cpu, 4) for _, cpu, _ in times[name, label]],
                "median": round(median(seconds for seconds, _, _ in times[name, label]), 4),
                "cpu_median": round(median(cpu for _, cpu, _ in times[name, label]), 4),
                "max_bytes": max(memory for _, _, memory in times[name, label]),
            }
            for label in starts
        }
        for name in pythons
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("environments", nargs="+", metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--predict", nargs=2, metavar=("MODEL", "VIDEO"), help="label this video with an exported file")
    options = parser.parse_args()
    for pair in options.environments:
        if "=" not in pair:
            parser.error(f"Expected NAME=PYTHON, such as plain=.venv/bin/python, got {pair!r}.")
    pythons = dict(pair.split("=", 1) for pair in options.environments)
    load_before = os.getloadavg()
    starts = dict(STARTS)
    if options.predict:  # in environments without PyTorch, which the first model needs
        del starts["vsn.create_model"]
        starts["vsn predict"] = ["-m", "vsn", "predict", *options.predict]
    rows = measure(pythons, starts, options.rounds)
    names = [f"{name}=PYTHON" for name in pythons]
    rest = [word for word in sys.argv[2:] if "=" not in word]
    environments = {}
    for name, python in pythons.items():
        done = subprocess.run(
            [python, "-c", DESCRIBE], check=True, stdout=subprocess.PIPE, text=True, env=environment()
        )
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
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
