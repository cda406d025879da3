"""Fuse the scores of the runs of a grid: ensembles of networks that differ in a few settings. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vsn.ablation.paper_tables import make_tables
from vsn.ablation.plan import AblationSpec, plan_runs
from vsn.config import ConfigError, Recipe
from vsn.runs.results import find_scores
from vsn.scores.fuse import FusionReport, fuse_scores, fusion_report
from vsn.scores.match import match_scores
from vsn.scores.scores import load_scores

_LENGTHS = "model.num_frames=16,20,24,32"

ENSEMBLES: Mapping[str, tuple[str, ...]] = {
    "eco-en-lite": (_LENGTHS,),
    "eco-en-lite-rf": (_LENGTHS, "model.modality=rgb,flow"),
}
"""Published ensembles of ECO Lite (Zolfaghari et al. 2018), as texts for `vsn.ablation.grid.parse_grid`: networks of four
lengths, and the same on RGB and flow (R+F)."""


@dataclass(frozen=True)
class FusedSeed:
    """The fused scores of all runs of a grid with one seed."""

    seed: int
    file: Path
    """The fused scores, which `vsn fuse`, `compare` and `submit` read."""
    report: FusionReport | None
    """None if a video has no label."""


def ensemble_grid(name: str, base: Recipe) -> tuple[str, ...]:
    """Return the grid of a published ensemble.

    Raises:
        ConfigError: the recipe is not one of its network.
    """
    if not base.model.kind.startswith("eco_lite"):
        raise ConfigError(
            f"--ensemble {name} is of ECO Lite, and model.name is {base.model.name!r}. Use a recipe with model.name "
            "'eco_lite' or 'eco_lite_thin', or any other networks with --grid and --fuse."
        )
    return ENSEMBLES[name]


def fuse_grid(base: Recipe, spec: AblationSpec, out: Path) -> list[FusedSeed]:
    """Average the probabilities of all runs of ``spec.grid``, seed by seed, into ``out / fused-seed<seed>.npz``.

    Raises:
        ConfigError: the grid has fewer than two runs.
        ScoresError: a run has no scores, as if its folder was deleted, or they are of other videos or classes.
    """
    tables, _ = make_tables(base, (), spec.grid or {}, ())
    fused = []
    for seed in spec.seeds:
        runs = plan_runs(tables, (seed,), out)
        if len(runs) < 2:
            raise ConfigError(
                f"--fuse needs two runs or more, the grid has {len(runs)}: give a setting several values."
            )
        files = find_scores([run.path for run in runs])
        names = [run.variant.name for run in runs]
        inputs, _ = match_scores([load_scores(file) for file in files], names)
        scores = fuse_scores(inputs)
        for part, file in zip(scores.facts["fused_from"], files, strict=True):
            part["file"] = str(file)
        file = out / f"fused-seed{seed}.npz"
        scores.save(file)
        fused.append(FusedSeed(seed, file, None if scores.num_unlabeled else fusion_report(inputs, names, scores)))
    return fused
