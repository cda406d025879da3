"""Join what `vsn export --check-accuracy --json` printed into one JSON for results/, and print its table.

python benchmarks/parity.py results/export-parity-cpu.json EXPORTED.json [EXPORTED.json ...] [--data WORDS]
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tables import parity_table
from vsn.runs.metadata import versions
from vsn.system.files import write_json


def row(path: Path) -> dict[str, Any]:
    """What a page says of one file, without the network's settings and this machine's paths."""
    told = json.loads(path.read_text(encoding="utf-8"))
    facts = told["metadata"]
    kept = {key: told[key] for key in ("num_bytes", "clips", "check", "accuracy")}
    model = {"model": facts["recipe"]["model"]["name"], "num_frames": facts["num_frames"]}
    size = {key: facts[key] for key in ("height", "width", "to", "precision")}
    return {**model, **size, **kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("exported", type=Path, nargs="+")
    parser.add_argument("--data", default="", help="what the run and its videos were, in words")
    options = parser.parse_args()
    rows = [row(path) for path in options.exported]
    facts = {
        "command": "vsn export RUN --to FORMAT [--int8] --check-accuracy --json",
        "date": datetime.now(UTC).date().isoformat(),
        "data": options.data,
        "versions": versions(),
        "rows": rows,
    }
    write_json(options.output, facts)
    print(parity_table(rows))


if __name__ == "__main__":
    main()
