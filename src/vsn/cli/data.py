"""`vsn data`: write, pack and examine data sets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vsn.cli.settings import parse_command, parse_settings

data_app = tyro.extras.SubcommandApp()


@data_app.command
def synth(
    root: Annotated[Path, tyro.conf.Positional],
    size: int = 112,
    train_per_class: int = 50,
    val_per_class: int = 10,
    test_per_class: int = 20,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write the embedded data set: real video files whose classes differ only in the order of frames.

    Args:
        root: folder to write; an interrupted set continues there.
        size: height and width, pixels, 96 to 128.
        train_per_class: training videos a class.
        val_per_class: validation videos a class.
        test_per_class: test videos a class.
        seed: the set depends on it alone, whatever the number of workers.
        workers: processes; default one a core.
    """
    from vsn.data.embedded.write import SynthSpec, write_dataset

    spec = SynthSpec(
        size=size,
        num_train_per_class=train_per_class,
        num_val_per_class=val_per_class,
        num_test_per_class=test_per_class,
        seed=seed,
    )
    print(write_dataset(root, spec, num_workers=workers))


@dataclasses.dataclass(frozen=True)
class PackCommand:
    """Write a data set in a form made for fast reading: small frames, each decodable alone, few files.

    It takes the settings that `vsn train` takes, for example `vsn data pack --out packed --data.root
    clips`, and prints those with which training reads the packed set.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn; default none."""
    out: Path | None = None
    """Folder of the packed set; an interrupted one continues there."""
    short_side: int = 256
    """Shorter side of the stored frames, pixels; smaller frames stay as they are."""
    quality: int = 90
    """JPEG quality of the stored frames, 1 to 100."""
    workers: int | None = None
    """Processes; default one a core."""
    max_bad: float = 0.0
    """Share of the videos that may be unreadable; they are listed in bad.csv and left out."""
    verify: Path | None = None
    """Check every frame of this packed set instead of writing one; the exit status is 1 when one is damaged."""


@dataclasses.dataclass(frozen=True)
class DoctorCommand:
    """Examine a data set before a long run: what would break it, bias it, or slow it down.

    It takes the settings that `vsn train` takes, for example `vsn data doctor --data.root clips`. The
    exit status is 1 when something would break or bias a run. With --model.modality flow the stored flow is examined too.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn; default none."""
    sample: int | None = None
    """Examine this many videos of each split, drawn at random; default all."""
    thorough: bool = False
    """Decode every frame of every video, rather than those a clip needs."""
    workers: int | None = None
    """Processes; default one a core."""
    gpu_speed: float | None = None
    """Videos a second that the training computer's GPU takes, to compare loading with."""
    json: bool = False
    """Print JSON."""


@data_app.command(name="pack")
def pack_help(command: PackCommand) -> None:
    """Write a data set in a form made for fast reading."""
    raise AssertionError("main hands `data pack` to pack_command, which reads the recipe first")


@data_app.command(name="doctor")
def doctor_help(command: DoctorCommand) -> None:
    """Examine a data set before a long run."""
    raise AssertionError("main hands `data doctor` to doctor_command, which reads the recipe first")


def pack_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn data pack`."""
    from vsn.data.packing.pack import pack_dataset, verify_pack

    command, rest = parse_command(PackCommand, arguments, "vsn data pack")
    if command.verify is not None:
        damaged = verify_pack(command.verify, num_workers=command.workers)
        for error in damaged:
            print(error)
        print(f"{command.verify}: " + (f"{len(damaged)} faults" if damaged else "every frame is as it was packed"))
        raise SystemExit(1 if damaged else 0)
    recipe = parse_settings(command.recipe, rest, arguments, "vsn data pack")
    if recipe.model.modality == "flow":
        raise ValueError(
            "model.modality is 'flow', and flow is packed already: `vsn flow extract` writes it as one .vsnflow file a "
            "video. To pack the frames, leave model.modality out."
        )
    if command.out is None:
        raise ValueError("vsn data pack needs --out, the folder to write.")
    summary = pack_dataset(
        recipe.data,
        command.out,
        short_side=command.short_side,
        quality=command.quality,
        num_workers=command.workers,
        max_bad=command.max_bad,
    )
    print(summary)


def doctor_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn data doctor`."""
    from vsn.data.flow.values import wanted_flow
    from vsn.doctor import FlowWanted, examine, print_page

    command, rest = parse_command(DoctorCommand, arguments, "vsn data doctor")
    recipe = parse_settings(command.recipe, rest, arguments, "vsn data doctor")
    diagnosis = examine(
        recipe.data,
        recipe.clip,
        recipe.model.num_frames,
        sample=command.sample,
        thorough=command.thorough,
        num_workers=command.workers,
        gpu_videos_per_second=command.gpu_speed,
        batch_size=recipe.train.batch_size,
        flow=FlowWanted(wanted_flow(recipe), recipe.model.flow_length) if recipe.model.modality == "flow" else None,
    )
    if command.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        print_page(diagnosis, Console())
    if not diagnosis.healthy:
        raise SystemExit(1)
