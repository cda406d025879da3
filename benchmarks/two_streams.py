"""Fuse the tested runs of two streams, and write the results as one JSON for results/.

python benchmarks/two_streams.py results/NAME.json --streams DATA RUN RUN [RUN ...] [--streams ...] [--protocols fcn center]

Test each run by `vsn eval` first. Probabilities are averaged with equal weights, as in the paper's Table 2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.runs.metadata import versions
from vsn.runs.run import open_run, read_metrics
from vsn.scores.fuse import fuse_scores, fusion_report
from vsn.scores.match import match_scores
from vsn.scores.scores import load_scores
from vsn.system.files import write_json

NAMES = {"rgb": "RGB", "flow": "flow", "rgbdiff": "RGB differences"}


def stream(path: Path) -> dict[str, Any]:
    """Return settings and training of one run, without paths of the machine."""
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


def fuse_streams(data: str, paths: Sequence[Path], protocol: str = "fcn") -> dict[str, Any]:
    """Fuse the test scores of the streams of a data set, with frames in order; return each stream and the fusion."""
    runs = [stream(path) for path in paths]
    seeds = {run["recipe"]["train"]["seed"] for run in runs}
    names = [NAMES[run["recipe"]["model"]["modality"]] for run in runs]
    inputs = [load_scores(path / "eval" / f"test-{protocol}-forward.npz") for path in paths]
    matched, left_out = match_scores(inputs, names)
    assert not left_out
    report = fusion_report(matched, names, fuse_scores(matched)).to_dict()
    return {"data": data, "protocol": protocol, "seeds": sorted(seeds), "streams": runs, "report": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--streams", nargs="+", action="append", required=True, metavar=("DATA", "RUN"))
    parser.add_argument("--protocols", nargs="+", default=["fcn"])
    arguments = parser.parse_args()
    pairs = [
        fuse_streams(data, [Path(path) for path in paths], protocol)
        for data, *paths in arguments.streams
        for protocol in arguments.protocols
    ]
    named = " ".join(
        f"--streams '{data}' {' '.join(Path(path).name for path in paths)}" for data, *paths in arguments.streams
    )
    named += f" --protocols {' '.join(arguments.protocols)}"
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
