"""`vsn train`: train a recipe into a run folder, or resume a run."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from rich.console import Console

from vsn.cli.settings import RecipeCommand, RecipeSettings, print_unused_settings
from vsn.system.terminal import print_line, shell_quote


@dataclasses.dataclass(frozen=True)
class TrainCommand(RecipeCommand):
    """Train a model from a recipe, or resume a run.

    Without a recipe, `vsn train --data.root clips` chooses one by the device and the number of videos. Every
    setting can be changed on the command line, for example `--data.root clips`,
    `--model.name tsm_resnet50`, `--train.epochs 10`. `vsn recipe show RECIPE` prints all settings;
    `vsn train RECIPE --help` explains them.
    """

    out: Path | None = None
    """The run folder to make; default runs/<recipe>-<model>-<time>."""
    init_from: Path | None = None
    """Fine-tune from the weights of this run (a folder, or a weights file in it): the backbone, and the classifier's
    rows of classes with the same names. The same as `--model.weights RUN`."""
    resume: Path | None = None
    """Resume this run where it stopped, in the middle of an epoch too. Settings that do not change the result,
    such as `--data.num-workers`, may follow."""
    find_batch_size: bool = False
    """Do not train: find the largest batch size that fits into memory here."""

    def run(self, settings: RecipeSettings) -> None:
        """Train, resume, or find the batch size."""
        console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")  # under torchrun only rank 0 prints
        if self.resume:
            self._resume(self.resume, settings, console)
            return
        if self.init_from and not self.recipe:
            raise ValueError(
                f"--init-from needs the recipe that its weights are for, as in: vsn train finetune --init-from "
                f"{shell_quote(self.init_from)} --data.root clips"
            )
        # --init-from is a setting of the recipe under another name, so that the run records it.
        if self.init_from:
            if any(argument.partition("=")[0] == "--model.weights" for argument in settings.arguments):
                raise ValueError("--init-from sets model.weights; leave out --init-from or --model.weights.")
            arguments = (*settings.arguments, "--model.weights", str(self.init_from))
            settings = dataclasses.replace(settings, arguments=arguments)
        name, recipe = (self.recipe, settings.apply_to(self.recipe)) if self.recipe else settings.choose(console)
        # model.weights may name published weights or a file too; --init-from takes only a run.
        if self.init_from:
            from vsn.training.start import check_is_run

            check_is_run(self.init_from)
        print_unused_settings(recipe, console)
        if self.find_batch_size:
            from vsn.training.batch_size import find_batch_size

            print_line(console, find_batch_size(recipe))
            return
        from vsn.training.train import train

        # The time makes the name unique. A model name such as timm/resnet50d must not make a folder.
        stem = f"{Path(name).stem}-{recipe.model.name.replace('/', '-')}"
        train(recipe, self.out or Path("runs") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}")

    def _resume(self, path: Path, settings: RecipeSettings, console: Console) -> None:
        if self.recipe or self.out or self.init_from or self.find_batch_size:
            raise ValueError(
                "--resume takes only a run: leave out the recipe, --out, --init-from and --find-batch-size."
            )
        from vsn.runs.folds import is_folds
        from vsn.runs.run import is_finished, open_run
        from vsn.training.train import train

        if is_folds(path):
            raise ValueError(f"{path} is a folder of folds: the `vsn folds` command that made it continues it.")
        run = open_run(path)
        # The recipe of the run holds the defaults; `train` refuses changes that would change the result.
        if not is_finished(run.path):
            settings = dataclasses.replace(settings, prog="vsn train --resume RUN")
            train(settings.apply_to("", run.recipe), run.path, resume=True)
        elif settings.arguments:
            raise ValueError(
                f"{run.path} has finished, so {settings.arguments[0]} has no effect. To train further, start a new run "
                f"from its weights: vsn train RECIPE --init-from {shell_quote(run.path)}"
            )
        else:
            print_line(console, f"{run.path} has finished. Test it with: vsn eval {shell_quote(run.path)}")
