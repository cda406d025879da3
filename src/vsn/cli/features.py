"""`vsn features`: write features of videos as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vsn.cli.options import Device, RunProtocol, Weights
from vsn.config import Source


def features(
    run: Annotated[Path, tyro.conf.Positional],
    videos: Annotated[list[Path], tyro.conf.Positional] = [],  # noqa: B006  (only read)
    out: Path = Path("features.npz"),
    split: str = "",
    source: Source | None = None,
    root: Path | None = None,
    per_frame: bool = False,
    protocol: RunProtocol = None,
    weights: Weights = "last",
    device: Device = "auto",
    bad_videos: Literal["stop", "nan"] = "stop",
) -> None:
    """Write the features of video files, of folders of them, or of a split of a data set as .npz.

    Features are the input of the classifier: the mean over frames and views, (N, D), or one per frame,
    (N, T, D). The same command resumes an interrupted extraction.

    Args:
        run: a run folder, hf://user/name, or a file that `vsn export` wrote, whose features are those of video files.
        videos: video files or folders of them; none: a split of the run's data set.
        out: the file to write.
        split: of the data set; default the one the run was trained on.
        source: format of the data set; default the run's.
        root: folder of the data set; default the run's. Its classes may differ from the run's.
        per_frame: one vector per frame, not their mean.
        bad_videos: a video that cannot be read stops the extraction, or gets a row of NaN.
    """
    import numpy as np

    from vsn.inference.features import extract_features

    extracted = extract_features(
        run,
        out,
        videos=videos,
        split=split or None,
        source=source,
        root=root,
        per_frame=per_frame,
        protocol=protocol,
        weights=weights,
        device=device,
        bad_videos=bad_videos,
    )
    # An unreadable video has only NaN, so its first value tells.
    vectors = extracted.features.reshape(len(extracted.features), -1)
    num_unreadable = int(np.isnan(vectors[:, 0]).sum())
    note = f", {num_unreadable} of them unreadable (NaN)" if num_unreadable else ""
    print(f"{out}: features {extracted.features.shape} of {len(extracted.video_ids)} videos{note}.")
