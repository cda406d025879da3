"""Fuse the tested runs of two streams and write what came out as one JSON for results/.

python benchmarks/two_streams.py results/NAME.json --pair DATA RGB-RUN FLOW-RUN [--pair ...]

Each pair has been tested by `vsn eval`. Probabilities are averaged one to one, as in the paper's Table 2.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.engine.checkpoint import open_run, read_metrics, versions
from vsn.engine.fuse import fuse_scores, fusion_report
from vsn.engine.match import match_scores
from vsn.engine.scores import load_scores
from vsn.files import write_json


def stream(path: Path) -> dict[str, Any]:
    """Settings and training of one run, without paths of the machine."""
    run = open_run(path)
    data = replace(run.recipe.data, root="", flow="")
    recipe = replace(
        run.recipe, data=data, model=replace(run.recipe.model, weights=Path(run.recipe.model.weights).name)
    )
    return {
        "run": path.name,
        "recipe": recipe.to_dict(),
        "versions": json.loads((path / "versions.json").read_text(encoding="utf-8")),
        "training_seconds": sum(line["seconds"] for line in read_metrics(path)),
    }


def fuse_pair(data: str, rgb: Path, flow: Path) -> dict[str, Any]:
    """Both streams of a data set alone and averaged, of their test scores in order."""
    runs = [stream(path) for path in (rgb, flow)]
    seeds = {run["recipe"]["train"]["seed"] for run in runs}
    inputs = [load_scores(path / "eval" / "test-fcn-forward.npz") for path in (rgb, flow)]
    matched, left_out = match_scores(inputs, ["RGB", "flow"])
    assert not left_out
    report = fusion_report(matched, ["RGB", "flow"], fuse_scores(matched))
    return {"data": data, "seeds": sorted(seeds), "streams": runs, "report": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--pair", nargs=3, action="append", required=True, metavar=("DATA", "RGB", "FLOW"))
    arguments = parser.parse_args()
    pairs = [fuse_pair(data, Path(rgb), Path(flow)) for data, rgb, flow in arguments.pair]
    named = " ".join(
        f"--pair {data} {Path(rgb).name} {Path(flow).name}" for data, rgb, flow in arguments.pair
    )
    facts = {
        "command": f"python benchmarks/two_streams.py {arguments.output.name} {named}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "pairs": pairs,
    }
    write_json(arguments.output, facts)

    from tables import streams_table

    print(streams_table(pairs))


if __name__ == "__main__":
    main()
