"""Test finished runs, and write settings, training and results as one JSON for results/.

python benchmarks/collect.py results/NAME.json RUN [RUN ...] [--orders forward shuffled] [--protocols fcn 3crop]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from folds import paired_differences
from vsn.inference.evaluate import evaluate_run
from vsn.runs.results import find_scores
from vsn.runs.run import open_run, read_metrics
from vsn.scores.scores import load_scores
from vsn.system.files import write_json


def collect(path: Path, orders: list[str], protocols: list[str]) -> dict[str, Any]:
    """Return settings, training and test results of one run, without paths of the machine."""
    run = open_run(path)
    data = replace(run.recipe.data, root="")
    recipe = replace(
        run.recipe, data=data, model=replace(run.recipe.model, weights=Path(run.recipe.model.weights).name)
    )
    metrics = read_metrics(path)
    return {
        "run": path.name,
        "recipe": recipe.to_dict(),
        "versions": json.loads((path / "versions.json").read_text(encoding="utf-8")),
        "training_seconds": sum(line["seconds"] for line in metrics),
        "metrics": metrics,
        "test": [
            evaluate_run(path, config=replace(run.recipe.eval, order=order, protocol=protocol)) | {"root": ""}
            for protocol in protocols or [run.recipe.eval.protocol]
            for order in orders
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--orders", nargs="+", default=["forward", "shuffled"])
    parser.add_argument("--protocols", nargs="+", default=[], help="default: that of each run")
    parser.add_argument("--data", default="", help="description of the videos")
    arguments = parser.parse_args()
    names = [path.name for path in arguments.runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        parser.error(
            f"Rows are named by the run folders, and {', '.join(repeated)} comes more than once: rename the folders."
        )
    runs = [collect(path, arguments.orders, arguments.protocols) for path in arguments.runs]
    facts = {
        "command": f"python benchmarks/collect.py results/{arguments.output.name} {' '.join(names)}",
        "date": datetime.now(UTC).date().isoformat(),
        "data": arguments.data,
        "runs": runs,
        "differences": paired_differences({path.name: load_scores(find_scores([path])[0]) for path in arguments.runs}),
    }
    write_json(arguments.output, facts)
    for run in runs:
        print(
            run["run"],
            *(f"{test['protocol']} {test['order']} {test['top1']:.1%} {test['top1_interval']}" for test in run["test"]),
        )


if __name__ == "__main__":
    main()
