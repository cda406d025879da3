"""Join the outputs of `vsn export --check-accuracy --json` into one JSON for results/, and print its table.

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
    """Return the figures of one file, without settings of the network and paths of the machine."""
    output = json.loads(path.read_text(encoding="utf-8"))
    facts = output["metadata"]
    kept = {key: output[key] for key in ("num_bytes", "clips", "check", "accuracy")}
    model = {"model": facts["recipe"]["model"]["name"], "num_frames": facts["num_frames"]}
    size = {key: facts[key] for key in ("height", "width", "to", "precision", "folded")}
    return {**model, **size, **kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("exported", type=Path, nargs="+")
    parser.add_argument("--data", default="", help="description of the run and its videos")
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
