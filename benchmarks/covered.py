"""Sum the test coverage reported by `coverage json` per package, for results/.

    python -m coverage run -m pytest
    python -m coverage combine && python -m coverage json -o coverage.json
    python benchmarks/covered.py coverage.json results/coverage-cpu.json --tests 'pytest [options]'

`[tool.coverage.run]` in pyproject.toml includes subprocesses.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.runs.metadata import versions
from vsn.system.files import write_json


def package(file: str) -> str:
    """Return `vsn.data` for src/vsn/data/flow/values.py, `vsn.ops` for src/vsn/ops.py, `vsn` for src/vsn/__init__.py."""
    parts = Path(file).with_suffix("").parts
    parts = parts[len(parts) - 1 - parts[::-1].index("vsn") :]
    return ".".join(part for part in parts[:2] if part != "__init__")


def by_package(files: dict[str, Any]) -> list[dict[str, Any]]:
    """Return statements, those that ran, and their share, of each package by name, and in total."""
    sums: dict[str, list[int]] = {}
    for file, facts in sorted(files.items()):
        for name in (package(file), "total"):
            counts = sums.setdefault(name, [0, 0])
            counts[0] += facts["summary"]["num_statements"]
            counts[1] += facts["summary"]["covered_lines"]
    order = sorted(sums, key=lambda name: (name == "total", name))
    return [
        {"package": name, "statements": total, "covered": ran, "percent": round(100 * ran / max(total, 1), 1)}
        for name, (total, ran) in ((name, sums[name]) for name in order)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measured", type=Path, help="output of `coverage json`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tests", default="pytest", help="the command of the tests")
    options = parser.parse_args()
    measured = json.loads(options.measured.read_text(encoding="utf-8"))
    rows = by_package(measured["files"])
    facts = {
        "command": f"python -m coverage run -m {options.tests}",
        "date": datetime.now(UTC).date().isoformat(),
        "tool": f"coverage {measured['meta']['version']}",
        "versions": versions(),
        "rows": rows,
    }
    write_json(options.out, facts)
    print(
        "\n".join(f"{row['package']:24}{row['covered']:6} of {row['statements']:6}{row['percent']:7}%" for row in rows)
    )


if __name__ == "__main__":
    main()
