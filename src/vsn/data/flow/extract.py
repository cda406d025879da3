"""Compute the optical flow of a data set and store it: `vsn flow extract`.

The folder holds `flow.json` (what the values mean, how they were made) and the flow of each video under the video's name;
see `vsn.data.per_video`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from vsn.config import ConfigError, FlowMethod, SampledBy, StoredLayout, Tvl1Config
from vsn.config.errors import check_range
from vsn.data.flow.compute import CPU_PIXELS, METHOD_NAMES, flow_method, iter_fields
from vsn.data.flow.stored import QUALITY, SUFFIX, write_flow_file, write_flow_folder
from vsn.data.flow.values import METADATA_FILE, FlowMetadata
from vsn.data.per_video import NamedVideo, Stored, VideoResult, one_thread, store_for_videos
from vsn.data.video import VideoError, at_constant_rate, open_video, part_reader
from vsn.system.terminal import shell_quote

_GPU_PIXELS = 32 * 256 * 340
"""Pixels of the pairs computed at once on a GPU."""


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and stored; the same for all videos of a folder."""

    method: FlowMethod = "tvl1"
    layout: StoredLayout = "file"
    short_side: int | None = 256
    """Shorter side, pixels, that frames are resized to before; None: not resized."""
    bound: float = FlowMetadata.bound
    """Motion, pixels, that byte 255 stands for."""
    by: SampledBy = "time"
    """Whether fields are those of frames at a constant rate, or of stored frames (`clip.by`)."""
    backward: bool = False
    """Compute the motion from each frame to the one before, not to the next."""

    def __post_init__(self) -> None:
        for key, allowed in (("method", FlowMethod), ("layout", StoredLayout), ("by", SampledBy)):
            value = getattr(self, key)
            if value not in get_args(allowed):
                raise ConfigError(f"{key} is {value!r}; choose from {', '.join(get_args(allowed))}.")
        check_range(self, "[8, inf)", "short_side")
        check_range(self, "(0, inf)", "bound")

    @property
    def metadata(self) -> FlowMetadata:
        """What readers need to know of the stored flow."""
        return FlowMetadata(
            self.bound,
            METHOD_NAMES[self.method],
            short_side=self.short_side,
            by=self.by,
            direction="backward" if self.backward else "forward",
        )

    def description(self) -> dict[str, Any]:
        """Return the content of `flow.json`: what readers need, and how the flow was made."""
        # Parameters are stored, so that flow of another version of the algorithm is not mixed in.
        extraction: dict[str, object] = {"method": self.method, "layout": self.layout, "quality": QUALITY}
        if self.method == "tvl1":
            extraction["parameters"] = asdict(Tvl1Config())
        return {**self.metadata.to_json(), "extraction": extraction}


def flow_path(video: NamedVideo, out: Path, layout: StoredLayout) -> Path:
    """Return where the flow of a video is stored: a file or a folder."""
    return out / (video.name + SUFFIX if layout == "file" else video.name)


@dataclass(frozen=True)
class ExtractSummary(Stored):
    """What an extraction stored. `str()` gives a few lines for users."""

    settings: FlowSettings

    def __str__(self) -> str:
        lines = self.describe("flow", "fields")
        metadata = self.settings.metadata
        method = "" if metadata.method == FlowMetadata.method else f" --model.flow-method {metadata.method}"
        bound = "" if metadata.bound == FlowMetadata.bound else f" --model.flow-bound {metadata.bound:g}"
        use = "--data.flow-backward" if self.settings.backward else "--model.modality flow --data.flow"
        lines.append(f"Train on it with {use} {shell_quote(self.out.absolute())}{method}{bound}")
        if not self.settings.backward:
            # It takes frames, and follows points through them: its modality stays "rgb".
            lines.append("TrajectoryNet takes --data.flow without --model.modality, and flow --backward beside it.")
        return "\n".join(lines)


def extract_flow(
    videos: Iterable[NamedVideo],
    out: str | Path,
    settings: FlowSettings | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    device: str = "cpu",
    num_workers: int | None = None,
    progress: bool = True,
) -> ExtractSummary:
    """Store the flow of videos in the folder `out`; existing flow is kept.

    Args:
        videos: See `vsn.data.per_video`.
        out: New or empty folder, or one of an extraction with the same settings.
        settings: Default `FlowSettings()`.
        shard: `(i, n)` to do every n-th video from the i-th on, i from 0, where n machines share the work.
        device: What method "tvl1" computes on: cpu or cuda.
        num_workers: Processes; None for one per CPU, on a GPU at most 4; 0 or 1 for the calling process. A script keeps
            the call under `if __name__ == "__main__":`.
        progress: Show a progress bar.

    Returns:
        The summary. Videos that failed are in it and in `failed.csv`, and do not raise.

    Raises:
        ConfigError: Settings out of range, two videos of one name, or a folder that holds something else.
    """
    out, settings = Path(out), settings or FlowSettings()
    flow_method(settings.method, device)  # fail now if it cannot run here
    stored = store_for_videos(
        partial(_extract, out=out, settings=settings, device=device),
        videos,
        out,
        place=partial(flow_path, out=out, layout=settings.layout),
        description=settings.description(),
        metadata_file=METADATA_FILE,
        thing="flow",
        shard=shard,
        device=device,
        num_workers=num_workers,
        progress=progress,
    )
    return ExtractSummary(**vars(stored), settings=settings)


@one_thread()
def _extract(video: NamedVideo, *, out: Path, settings: FlowSettings, device: str) -> VideoResult:
    """Compute and store the flow of one video, in a worker process."""
    path = flow_path(video, out, settings.layout)
    compute = flow_method(settings.method, device)
    pixels_at_once = CPU_PIXELS if device == "cpu" else _GPU_PIXELS
    try:
        whole = open_video(
            video.path, short_side=settings.short_side, frame_template=video.frame_template, decoder=video.decoder
        )
        with part_reader(whole, video.part) as stored:
            frames = at_constant_rate(stored) if settings.by == "time" else stored
            rate = frames.frames_per_second
            fields = iter_fields(
                video.path,
                frames,
                compute,
                bound=settings.bound,
                backward=settings.backward,
                pixels_at_once=pixels_at_once,
            )
            if settings.layout == "file":
                num_fields = write_flow_file(path, fields, video_id=video.name, frames_per_second=rate)
            else:
                num_fields = write_flow_folder(path, fields, layout=settings.layout)
    except ConfigError:  # a ValueError too, but of the settings: it concerns all videos
        raise
    except ValueError as error:
        reason = error.reason if isinstance(error, VideoError) else " ".join(str(error).split())
        return VideoResult(video, reason=reason)
    return VideoResult(video, num_fields)
