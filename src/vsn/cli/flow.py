"""`vsn flow`: compute and store optical flow, and look at it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.settings import parse_command, parse_settings
from vsn.config import ConfigError, FlowMethod, StoredLayout

flow_app = tyro.extras.SubcommandApp()


@dataclasses.dataclass(frozen=True)
class ExtractCommand:
    """Compute the optical flow of every video of a data set, and store it for training.

    It takes the settings that `vsn train` takes, for example `vsn flow extract --out flow --data.root
    clips`, or a plain folder of videos: `vsn flow extract --out flow --videos clips`. Stopped at any
    moment, it goes on from there when called again. The exit status is 1 when a video failed.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn; default none."""
    out: Path | None = None
    """Folder of the flow; an interrupted extraction continues there."""
    videos: Path | None = None
    """A folder of video files, at any depth, in the place of a data set."""
    method: FlowMethod | None = None
    """tvl1 (ours), tvl1-opencv (TSN's), or, not the paper's: dis, farneback. Default: model.flow_method."""
    layout: StoredLayout = "file"
    """file: one .vsnflow a video; xy: pictures flow_x_00001.jpg, flow_y_00001.jpg; rg: 000001.jpg."""
    short_side: int | None = None
    """Shorter side of the frames, pixels; 0 leaves them as they are. Default: model.flow_short_side, else
    clip.short_side."""
    shard: str = "0/1"
    """i/n: the i-th of n parts, counted from 0, where n machines share the work."""
    workers: int | None = None
    """Processes; default one a core."""
    device: str = "cpu"
    """cpu or cuda; the latter with method tvl1."""


@flow_app.command(name="extract")
def extract_help(command: ExtractCommand) -> None:
    """Compute the optical flow of every video of a data set, and store it for training."""
    raise AssertionError("main hands `flow extract` to extract_command, which reads the recipe first")


def extract_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn flow extract`."""
    from vsn.data.flow.compute import method_of
    from vsn.data.flow.extract import extract_flow
    from vsn.data.flow.extract_plan import FlowSettings, videos_of_data_set, videos_of_folder
    from vsn.data.flow.values import wanted_flow

    command, rest = parse_command(ExtractCommand, arguments, "vsn flow extract")
    recipe = parse_settings(command.recipe, rest, arguments, "vsn flow extract")
    if command.out is None:
        raise ValueError("vsn flow extract needs --out, the folder to write.")
    short_side = wanted_flow(recipe).short_side if command.short_side is None else command.short_side
    settings = FlowSettings(
        method=command.method or method_of(recipe.model.flow_method),
        layout=command.layout,
        short_side=short_side or None,
        bound=recipe.model.flow_bound,
    )
    shard = _parse_shard(command.shard)
    folder = command.videos
    videos = videos_of_folder(folder) if folder else videos_of_data_set(recipe.data, command.out)
    summary = extract_flow(
        videos, command.out, settings, shard=shard, device=command.device, num_workers=command.workers
    )
    for one in summary.failed:
        print(f"{one.video.path}: {one.reason}", file=sys.stderr)
    print(summary)
    if summary.failed:
        raise SystemExit(1)


def _parse_shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shard is {text!r}; it is i/n, such as 0/4, the first of four parts.")
    return int(index), int(count)


@flow_app.command
def show(
    video: Annotated[Path, tyro.conf.Positional],
    out: Path = Path("flow.png"),
    method: FlowMethod = "tvl1",
    short_side: int = 256,
    pairs: int = 4,
    device: str = "cpu",
) -> None:
    """Draw the optical flow of a video: frames, and the colors of their motion, with a legend.

    Args:
        video: a video file, or a folder of frames.
        out: the picture, .png (some frames), or the film, .mp4 (all of them).
        method: tvl1, tvl1-opencv, dis or farneback.
        short_side: shorter side of the frames, pixels; 0 leaves them as they are.
        pairs: how many frames a picture shows.
        device: cpu or cuda; the latter with method tvl1.
    """
    from vsn.data.flow.compute import flow_method
    from vsn.data.flow.show import show_flow
    from vsn.data.flow.values import FlowFacts

    scale = show_flow(
        video,
        out,
        flow_method(method, device),
        bound=FlowFacts.bound,
        short_side=short_side or None,
        num_pairs=pairs,
    )
    print(f"{out}: full color is {scale:g} px a frame.")
