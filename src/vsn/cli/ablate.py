"""`vsn ablate`: train the paper's ablations, or any grid of settings, into one table."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from vsn.cli.settings import RecipeCommand, RecipeSettings, command_line, print_unused_settings
from vsn.system.files import to_json

if TYPE_CHECKING:
    from vsn.ablation.fuse import FusedSeed


@dataclasses.dataclass(frozen=True)
class AblateCommand(RecipeCommand):
    """Train and test a grid of recipes with several seeds; print one table.

    Settings of the recipe may follow and apply to all runs, for example `--train.epochs 3`. The same
    command resumes an interrupted ablation, in the middle of an epoch too; with more seeds or tables it adds
    runs to those that are finished.

    `vsn ablate demo --tables 7 8 9 --seeds 0 1 2 --shuffled` runs the paper's ablations on the embedded data
    set, `vsn ablate demo --grid model.block=compact,headtail model.num_frames=4,8` every combination,
    `vsn ablate demo-eco-lite --ensemble eco-en-lite` trains four networks and averages their scores.
    """

    tables: tuple[Literal[5, 7, 8, 9], ...] = ()
    """Tables of the paper: 5 optical flow (it needs stored flow), 7 the block, 8 the number of shuffle blocks
    over all placements, 9 shift, shuffle and both."""
    grid: tuple[str, ...] = ()
    """SETTING=VALUE,VALUE ...: every combination; + joins the items of a list, as in
    model.places=res5,res4+res5."""
    fuse: bool = False
    """Also average the scores of all runs of --grid, as an ensemble, for each seed."""
    ensemble: Literal["eco-en-lite", "eco-en-lite-rf"] | None = None
    """The grid of a published ensemble, and --fuse: ECO Lite with 16, 20, 24 and 32 frames; -rf on RGB and on flow."""
    seeds: tuple[int, ...] = (0,)
    """Train every recipe with each of these seeds."""
    backbones: tuple[str, ...] = ()
    """One or two, for the paper's ResNet-50 and ResNet-101 (Tables 5 and 7); default the recipe's."""
    out: Path | None = None
    """Folder of the runs and of ablation.json; default runs/ablation-<recipe>."""
    shuffled: bool = False
    """Also test every run with its frames shuffled."""
    dry_run: bool = False
    """Do not train: list finished and remaining runs, with an estimate of the remaining time."""
    show: Path | None = None
    """Do not train: print the tables of this ablation.json."""
    merge: tuple[Path, ...] = ()
    """Do not train: merge the ablation.json of these folders, in which several machines trained some of the seeds or
    tables each, into that of --out."""
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON: the content of ablation.json, or with --dry-run the runs."""

    def run(self, settings: RecipeSettings) -> None:
        """Train what is missing and print the tables."""
        if self.show or self.merge:
            self._print_saved(settings)
            return
        if not self.recipe:
            raise ValueError(
                "vsn ablate needs a recipe, as in: vsn ablate demo --tables 7 8 9. `vsn recipe list` lists recipes."
            )
        # Settings are checked before torch is imported, which takes seconds.
        recipe = settings.apply_to(self.recipe)
        from vsn.ablation.fuse import ensemble_grid, fuse_grid
        from vsn.ablation.grid import parse_grid
        from vsn.ablation.plan import AblationSpec, describe_states
        from vsn.ablation.run import ablate, format_tables, plan_ablation
        from vsn.cli.score_tables import print_fusion

        if self.ensemble and self.grid:
            raise ValueError("--ensemble is a grid of its own; leave out --grid, or use --grid with --fuse.")
        if self.fuse and not (self.grid or self.ensemble):
            raise ValueError("--fuse averages the runs of a grid; pass --grid SETTING=VALUE,VALUE, or --ensemble.")
        grid = ensemble_grid(self.ensemble, recipe) if self.ensemble else self.grid
        out = self.out or Path("runs") / f"ablation-{Path(self.recipe).stem}"
        spec = AblationSpec(
            tables=self.tables,
            grid=parse_grid(grid),
            backbones=self.backbones,
            seeds=self.seeds,
            shuffled=self.shuffled,
        )
        # Finished runs of earlier calls are found by their settings, and are not trained again.
        if self.dry_run:
            states, missing = plan_ablation(recipe, spec, out)
            lines = [f"Table {key} is missing: {reason}" for key, reason in missing.items()]
            if self.json_output:
                print(to_json([dataclasses.asdict(state) for state in states], indent=2))
            else:
                print("\n".join([describe_states(states), *lines]))
            return
        is_rank0 = os.environ.get("RANK", "0") == "0"  # under torchrun only rank 0 prints
        console = Console(stderr=True, quiet=not is_rank0)
        print_unused_settings(recipe, console)
        result = ablate(recipe, spec, out, command=command_line.get(), console=console)
        if not is_rank0:
            return
        fused = fuse_grid(recipe, spec, out) if self.fuse or self.ensemble else []
        if self.json_output:
            added = {"fused": [_fused_to_dict(one) for one in fused]} if fused else {}
            print(to_json({**result, **added}, indent=2))
            return
        print(format_tables(result))
        for one in fused:
            print(f"\nSeed {one.seed}, fused into {one.file}:")
            if one.report:
                print_fusion(one.report)
            else:
                print("Some videos have no label: no accuracy was computed.")

    def _print_saved(self, settings: RecipeSettings) -> None:
        """Print a saved ablation.json, after merging several if asked to."""
        if self.recipe or settings.arguments:
            raise ValueError(
                "--show and --merge read existing ablation.json files; leave out the recipe and its settings."
            )
        from vsn.ablation.results import load_ablation
        from vsn.ablation.run import format_tables, merge_ablations

        if not self.merge:
            result = load_ablation(self.show or Path())
        elif self.out is None:
            raise ValueError("--merge needs --out, the folder of the merged ablation.json.")
        else:
            result = merge_ablations(self.merge, self.out)
        print(to_json(result, indent=2) if self.json_output else format_tables(result))


def _fused_to_dict(fused: FusedSeed) -> dict[str, Any]:
    report = {} if fused.report is None else fused.report.to_dict()
    return {"seed": fused.seed, "file": str(fused.file), **report}
