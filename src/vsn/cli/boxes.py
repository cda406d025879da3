"""`vsn boxes extract`: find the boxes of objects by a detector, and store them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vsn.cli.options import print_stored
from vsn.cli.settings import RecipeCommand, RecipeSettings


@dataclasses.dataclass(frozen=True)
class BoxesCommand(RecipeCommand):
    """Find the boxes of objects in every frame of a data set, and store them for NL-I3D + GCN.

    The region proposals of torchvision's Faster R-CNN, whose weights are a file of yours: for example `vsn boxes extract
    --out clips/boxes --data.root clips --data.detector fasterrcnn.pth`. Or those of a plain folder of videos, with
    --videos. The same command resumes an interrupted extraction. The exit status is 1 if a video failed.
    """

    out: Path | None = None
    """Folder of the boxes; an interrupted extraction continues there."""
    videos: Path | None = None
    """A folder of video files, at any depth, instead of a data set."""
    shard: str = "0/1"
    """i/n: the i-th of n parts, counted from 0, if n machines share the work."""
    workers: int | None = None
    """Processes; default one per core."""
    device: str = "cpu"
    """cpu or cuda."""

    def run(self, settings: RecipeSettings) -> None:
        """Extract, and report the videos that failed."""
        from vsn.data.boxes.extract import BoxSettings, extract_boxes
        from vsn.data.per_video import parse_shard, videos_of_data_set, videos_of_folder

        recipe = settings.apply_to(self.recipe)
        if self.out is None:
            raise ValueError("vsn boxes extract needs --out, the folder to write.")
        videos = videos_of_folder(self.videos) if self.videos else videos_of_data_set(recipe.data, self.out)
        summary = extract_boxes(
            videos,
            self.out,
            BoxSettings.of(recipe),
            shard=parse_shard(self.shard),
            device=self.device,
            num_workers=self.workers,
        )
        print_stored(summary)
