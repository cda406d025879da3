"""`vsn flow`: compute, store and draw optical flow."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.options import print_stored
from vsn.cli.settings import RecipeCommand, RecipeSettings
from vsn.config import FlowMethod, StoredLayout


@dataclasses.dataclass(frozen=True)
class ExtractCommand(RecipeCommand):
    """Compute the optical flow of every video of a data set, and store it for training.

    It takes the settings of `vsn train`, for example `vsn flow extract --out flow --data.root clips`, or a
    plain folder of videos: `vsn flow extract --out flow --videos clips`. The same command resumes an
    interrupted extraction. The exit status is 1 if a video failed.
    """

    out: Path | None = None
    """Folder of the flow; an interrupted extraction continues there."""
    videos: Path | None = None
    """A folder of video files, at any depth, instead of a data set."""
    method: FlowMethod | None = None
    """tvl1 (ours), tvl1-opencv (as TSN), or, not in the paper: dis, farneback. Default: model.flow_method."""
    layout: StoredLayout = "file"
    """file: one .vsnflow per video; xy: images flow_x_00001.jpg, flow_y_00001.jpg; rg: 000001.jpg."""
    short_side: int | None = None
    """Shorter side of the frames, pixels; 0 keeps their size. Default: model.flow_short_side, else clip.short_side."""
    backward: bool = False
    """Compute the motion from each frame to the one before, not to the next: TrajectoryNet takes both."""
    shard: str = "0/1"
    """i/n: the i-th of n parts, counted from 0, if n machines share the work."""
    workers: int | None = None
    """Processes; default one per core."""
    device: str = "cpu"
    """cpu or cuda; cuda only with method tvl1."""

    def run(self, settings: RecipeSettings) -> None:
        """Extract, and report the videos that failed."""
        from vsn.data.flow.compute import method_named
        from vsn.data.flow.extract import FlowSettings, extract_flow
        from vsn.data.flow.values import expected_flow
        from vsn.data.per_video import parse_shard, videos_of_data_set, videos_of_folder

        recipe = settings.apply_to(self.recipe)
        if self.out is None:
            raise ValueError("vsn flow extract needs --out, the folder to write.")
        shard = parse_shard(self.shard)
        short_side = expected_flow(recipe).short_side if self.short_side is None else self.short_side
        flow_settings = FlowSettings(
            method=self.method or method_named(recipe.model.flow_method),
            layout=self.layout,
            short_side=short_side or None,  # 0 keeps the size
            bound=recipe.model.flow_bound,
            by=recipe.clip.by,
            backward=self.backward,
        )
        videos = videos_of_folder(self.videos) if self.videos else videos_of_data_set(recipe.data, self.out)
        summary = extract_flow(
            videos, self.out, flow_settings, shard=shard, device=self.device, num_workers=self.workers
        )
        print_stored(summary)


def show(
    video: Annotated[Path, tyro.conf.Positional],
    out: Path = Path("flow.png"),
    method: FlowMethod = "tvl1",
    short_side: int = 256,
    pairs: int = 4,
    device: str = "cpu",
) -> None:
    """Draw the optical flow of a video: frames, and their motion as colors, with a legend.

    Args:
        video: a video file, or a folder of frames.
        out: an image (.png) of some frames, or a video (.mp4) of all frames.
        method: tvl1, tvl1-opencv, dis or farneback.
        short_side: shorter side of the frames, pixels; 0 keeps their size.
        pairs: how many frames an image shows.
        device: cpu or cuda; cuda only with method tvl1.
    """
    from vsn.data.flow.compute import flow_method
    from vsn.data.flow.show import show_flow
    from vsn.data.flow.values import FlowMetadata

    scale = show_flow(
        video,
        out,
        flow_method(method, device),
        bound=FlowMetadata.bound,
        short_side=short_side or None,
        num_pairs=pairs,
    )
    print(f"{out}: full color is {scale:g} pixels per frame.")
