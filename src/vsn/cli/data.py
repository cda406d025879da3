"""`vsn data`: write, pack and examine data sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vsn.cli.settings import RecipeCommand, RecipeSettings
from vsn.system.files import to_json


def synth(
    root: Annotated[Path, tyro.conf.Positional],
    size: int = 112,
    train_per_class: int = 50,
    val_per_class: int = 10,
    test_per_class: int = 20,
    level: Literal["basic", "hard"] = "basic",
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write the embedded data set: real video files whose classes differ only in the order of frames.

    Args:
        root: folder to write; an interrupted data set continues there.
        size: height and width, pixels, 96 to 128.
        train_per_class: training videos per class.
        val_per_class: validation videos per class.
        test_per_class: test videos per class.
        level: hard has motions to and fro, of small dots too, and four blinks at random times: 22 classes in 5 groups,
            where basic has 20 in 7.
        seed: the same seed gives the same data set, with any number of workers.
        workers: processes; default one per core.
    """
    from vsn.data.embedded.scenes import LEVELS
    from vsn.data.embedded.write import SynthSpec, write_dataset

    groups, difficulty = LEVELS[level]
    spec = SynthSpec(
        size=size,
        num_train_per_class=train_per_class,
        num_val_per_class=val_per_class,
        num_test_per_class=test_per_class,
        seed=seed,
        groups=groups,
        difficulty=difficulty,
    )
    print(write_dataset(root, spec, num_workers=workers))


@dataclasses.dataclass(frozen=True)
class PackCommand(RecipeCommand):
    """Pack a data set for fast reading: small frames, each decodable by itself, in few files.

    It takes the settings of `vsn train`, for example `vsn data pack --out packed --data.root clips`, and
    prints the settings with which training reads the packed data set.
    """

    out: Path | None = None
    """Folder of the packed data set; an interrupted one continues there."""
    short_side: int = 256
    """Shorter side of the stored frames, pixels; smaller frames keep their size."""
    quality: int = 90
    """JPEG quality of the stored frames, 1 to 100."""
    workers: int | None = None
    """Processes; default one per core."""
    max_bad: float = 0.0
    """Share of the videos that may be unreadable; they are listed in bad.csv and left out."""
    verify: Path | None = None
    """Check the frames and the list of this packed data set instead of writing one; the exit status is 1 for damage."""

    def run(self, settings: RecipeSettings) -> None:
        """Pack, or verify a packed data set."""
        from vsn.data.packing.pack import pack_dataset, verify_pack

        # Checking needs no recipe: a packed data set describes itself.
        if self.verify is not None:
            damaged = verify_pack(self.verify, num_workers=self.workers)
            for error in damaged:
                print(error)
            print(f"{self.verify}: {f'{len(damaged)} errors' if damaged else 'all frames and the list are intact'}")
            raise SystemExit(1 if damaged else 0)
        recipe = settings.apply_to(self.recipe)
        if recipe.model.modality == "flow":
            raise ValueError(
                "model.modality is 'flow', and stored flow is packed already: `vsn flow extract` writes one .vsnflow file "
                "per video. To pack the frames, leave model.modality out."
            )
        if self.out is None:
            raise ValueError("vsn data pack needs --out, the folder to write.")
        summary = pack_dataset(
            recipe.data,
            self.out,
            short_side=self.short_side,
            quality=self.quality,
            num_workers=self.workers,
            max_bad=self.max_bad,
        )
        print(summary)


@dataclasses.dataclass(frozen=True)
class DoctorCommand(RecipeCommand):
    """Examine a data set before a long run: what would break it, bias it, or slow it down.

    It takes the settings of `vsn train`, for example `vsn data doctor --data.root clips`. The exit status
    is 1 if something would break or bias a run. With --model.modality flow it also examines stored flow.
    """

    sample: int | None = None
    """Examine this many random videos of each split; default all."""
    thorough: bool = False
    """Decode every frame of every video, not only those of one clip."""
    workers: int | None = None
    """Processes; default one per core."""
    gpu_speed: float | None = None
    """Videos per second that the GPU you train on takes, to compare the loading speed with."""
    json: bool = False
    """Print JSON."""

    def run(self, settings: RecipeSettings) -> None:
        """Examine and print the findings."""
        from vsn.doctor import examine, print_page

        diagnosis = examine(
            settings.apply_to(self.recipe),
            sample=self.sample,
            thorough=self.thorough,
            num_workers=self.workers,
            gpu_videos_per_second=self.gpu_speed,
        )
        if self.json:
            print(to_json(diagnosis.to_dict(), indent=2))
        else:
            print_page(diagnosis, Console())
        # A script can stop before a long training.
        if not diagnosis.healthy:
            raise SystemExit(1)
