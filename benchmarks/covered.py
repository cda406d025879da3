"""How much of each room the tests run: the JSON of `coverage json`, summed by room, for results/.

    python -m coverage run -m pytest
    python -m coverage combine && python -m coverage json -o coverage.json
    python benchmarks/covered.py coverage.json results/coverage-cpu.json --tests 'pytest [what was left out]'

`[tool.coverage.run]` in pyproject.toml counts what runs in processes of their own, too.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.runs.metadata import versions
from vsn.system.files import write_json


def room(file: str) -> str:
    """`vsn.data` of src/vsn/data/flow/values.py, `vsn.ops` of src/vsn/ops.py, `vsn` of src/vsn/__init__.py."""
    parts = Path(file).with_suffix("").parts
    parts = parts[len(parts) - 1 - parts[::-1].index("vsn") :]
    return ".".join(part for part in parts[:2] if part != "__init__")


def by_room(files: dict[str, Any]) -> list[dict[str, Any]]:
    """Statements, those that ran, and the share of these, of each room in order of its name, and of all."""
    sums: dict[str, list[int]] = {}
    for file, facts in sorted(files.items()):
        for name in (room(file), "total"):
            counts = sums.setdefault(name, [0, 0])
            counts[0] += facts["summary"]["num_statements"]
            counts[1] += facts["summary"]["covered_lines"]
    order = sorted(sums, key=lambda name: (name == "total", name))
    return [
        {"room": name, "statements": of, "covered": ran, "percent": round(100 * ran / max(of, 1), 1)}
        for name, (of, ran) in ((name, sums[name]) for name in order)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measured", type=Path, help="what `coverage json` wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tests", default="pytest", help="the tests that were run")
    options = parser.parse_args()
    measured = json.loads(options.measured.read_text(encoding="utf-8"))
    rows = by_room(measured["files"])
    facts = {
        "command": f"python -m coverage run -m {options.tests}",
        "date": datetime.now(UTC).date().isoformat(),
        "tool": f"coverage {measured['meta']['version']}",
        "versions": versions(),
        "rows": rows,
    }
    write_json(options.out, facts)
    print("\n".join(f"{row['room']:24}{row['covered']:6} of {row['statements']:6}{row['percent']:7}%" for row in rows))


if __name__ == "__main__":
    main()
