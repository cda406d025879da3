"""`vsn features`: what a run's backbone makes of videos, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vsn.config import Protocol, Source


def features(
    run: Annotated[Path, tyro.conf.Positional],
    videos: Annotated[list[Path], tyro.conf.Positional] = [],  # noqa: B006  (only read)
    out: Path = Path("features.npz"),
    split: str = "",
    source: Source | None = None,
    root: Path | None = None,
    per_frame: bool = False,
    protocol: Protocol | None = None,
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
    bad_videos: Literal["stop", "nan"] = "stop",
) -> None:
    """Write the features of video files, of folders of them, or of a split of a data set as .npz.

    Features are what the classifier sees: the mean over frames and views, (N, D), or one for each frame,
    (N, T, D). Stopped, it leaves what it has beside the file, and the same command goes on.

    Args:
        run: a run folder, or hf://user/name.
        videos: video files or folders of them; none: a split of the run's data set.
        out: the file to write.
        split: of the data set; default the one the run was trained on.
        source: how the data set is read; default as the run's was.
        root: where the data set is; default where the run's was. Its classes may be others than the run's.
        per_frame: one for each frame, instead of their mean.
        protocol: the views of a video; default the run's.
        weights: the last of the run, or those of its best validation.
        device: auto, cpu or cuda.
        bad_videos: a video that cannot be read stops it, or gets a row of NaN.
    """
    from dataclasses import replace

    from vsn.inference.features import extract_features
    from vsn.runs.hub import local_run
    from vsn.runs.run import open_run

    run = local_run(run)
    config = open_run(run).recipe.eval
    if protocol is not None:
        config = replace(config, protocol=protocol)
    found = extract_features(
        run,
        out,
        videos=videos,
        split=split or None,
        source=source,
        root=root,
        per_frame=per_frame,
        config=config,
        weights=weights,
        device=device,
        bad_videos=bad_videos,
    )
    unreadable = sum(bool(row != row) for row in found.features.reshape(len(found.features), -1)[:, 0])
    note = f", {unreadable} of them NaN: not readable" if unreadable else ""
    print(f"{out}: features {found.features.shape} of {len(found.video_ids)} videos{note}.")
