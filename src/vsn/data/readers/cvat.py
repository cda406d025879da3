"""Read and write the XML of CVAT (version 1.1): tracks of video tasks, and tags of frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.files import errors_at
from vsn.data.readers.segments import Annotation, VideoLabels, annotation_files, read_annotations, split_name
from vsn.data.records import RecordSet


class _Task(NamedTuple):
    """What the head of a file states about its frames."""

    video: str
    first_frame: int
    """Of the video, that is frame 0 of the task."""
    step: int
    num_frames: int
    split: str
    labels: tuple[str, ...]


def read_cvat(config: DataConfig, split: str) -> RecordSet:
    """Read exports "CVAT for video 1.1" and "CVAT for images 1.1" of video tasks, one `.xml` for each task.

    The label of a track holds while its shape is not outside; a tag while frames in a row have it. The files are
    `data.annotations`, a file or a folder, or those in root, root/annotations or root/labels; videos are named by the
    source of the task, below root/videos or root. The subset of the tasks states their split, if all have one. Frames are
    those of the video, or counted by `data.annotation_rate`.
    """
    rows: list[Annotation] = []
    for file in annotation_files(config, ".xml", several=True):
        try:
            document = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise ConfigError(f"{file}: not XML ({error}).") from None
        with errors_at(file, "meta"):
            task = _read_task(document)
        for where, label, first, stop in (*_tracks(file, document), *_tags(file, document)):
            with errors_at(file, where):
                if task.labels and label not in task.labels:
                    raise ValueError(f"unknown label {label!r}; the task has {', '.join(map(repr, task.labels))}.")
            frames = (task.first_frame + first * task.step, task.first_frame + (stop - 1) * task.step + 1)
            rows.append(Annotation(file, where, (task.video,), (label,), frames=frames, split=task.split))
    return read_annotations(config, split, rows)


def _read_task(document: ElementTree.Element) -> _Task:
    head = next((found for name in ("meta/task", "meta/job") if (found := document.find(name)) is not None), None)
    if document.tag != "annotations" or head is None:
        raise ValueError("expected <annotations> with <meta><task>; export each task, not the project.")
    source = head.findtext("source") or document.findtext("meta/source") or ""
    if not source:
        raise ValueError("the task has no <source>, the name of its video.")
    step = re.search(r"step\s*=\s*(\d+)", head.findtext("frame_filter") or "")
    return _Task(
        source.strip(),
        int(head.findtext("start_frame") or 0),
        int(step[1]) if step else 1,
        int(head.findtext("size") or 0),
        split_name(head.findtext("subset")),
        tuple(name.text.strip() for name in head.iterfind("labels/label/name") if name.text),
    )


def _tracks(file: Path, document: ElementTree.Element) -> Iterator[tuple[str, str, int, int]]:
    """Yield place, label, first frame and the frame after the last of what each track shows."""
    for track in document.iterfind("track"):
        where = f"track {track.get('id')}"
        with errors_at(file, where):
            shapes = sorted(
                (int(shape.get("frame", "")), shape.get("outside") == "1") for shape in track if shape.get("frame")
            )
            if not shapes:
                raise ValueError("it has no shape with a frame.")
            label = track.get("label", "")
        first: int | None = None
        for frame, is_outside in shapes:
            if not is_outside and first is None:
                first = frame
            elif is_outside and first is not None:
                yield where, label, first, frame
                first = None
        if first is not None:
            yield where, label, first, shapes[-1][0] + 1


def _tags(file: Path, document: ElementTree.Element) -> Iterator[tuple[str, str, int, int]]:
    """Yield the same of the tags that frames in a row have."""
    frames_of: dict[str, list[int]] = {}
    for image in document.iterfind("image"):
        with errors_at(file, f"image {image.get('id')}"):
            for tag in image.iterfind("tag"):
                frames_of.setdefault(tag.get("label", ""), []).append(int(image.get("id", "")))
    for label, frames in frames_of.items():
        ordered = sorted(set(frames))
        first = ordered[0]
        for frame, following in zip(ordered, [*ordered[1:], None], strict=True):
            if following != frame + 1:
                yield f"tag {label!r} of frame {first}", label, first, frame + 1
                first = following if following is not None else first


def write_cvat(videos: Sequence[VideoLabels]) -> str:
    """Return the XML of one video task, "CVAT for video 1.1": a track with a box of the whole frame for each segment.

    Raises `ConfigError` for several videos: a task has one.
    """
    if len(videos) != 1:
        raise ConfigError(f"A file of CVAT is for one video task, got {len(videos)} videos; write one file for each.")
    (video,) = videos
    document = ElementTree.Element("annotations")
    ElementTree.SubElement(document, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(document, "meta"), "task")
    for name, value in (
        ("size", video.num_frames),
        ("mode", "interpolation"),
        ("start_frame", 0),
        ("source", video.path.name),
    ):
        ElementTree.SubElement(task, name).text = str(value)
    labels = ElementTree.SubElement(task, "labels")
    for name in dict.fromkeys(one.label for one in video.segments):
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    box = {
        "occluded": "0",
        "keyframe": "1",
        "xtl": "0",
        "ytl": "0",
        "xbr": str(video.width),
        "ybr": str(video.height),
        "z_order": "0",
    }
    for number, one in enumerate(video.segments):
        track = ElementTree.SubElement(document, "track", id=str(number), label=one.label, source="auto")
        first, stop = map(video.frame_at, (one.start, one.end))
        last = min(max(stop, first + 1), video.num_frames) - 1
        for frame in range(first, last + 1):
            ElementTree.SubElement(
                track, "box", {"frame": str(frame), "outside": "0", **box, "keyframe": str(int(frame == first))}
            )
        if last + 1 < video.num_frames:
            ElementTree.SubElement(track, "box", {"frame": str(last + 1), "outside": "1", **box})
    ElementTree.indent(document)
    return ElementTree.tostring(document, encoding="unicode", xml_declaration=True) + "\n"
