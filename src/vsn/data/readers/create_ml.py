"""Read and write the CSV of Create ML's action classifier."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from vsn.config import DataConfig
from vsn.data.part import format_seconds, parse_part
from vsn.data.readers.files import errors_at
from vsn.data.readers.segments import Annotation, VideoLabels, annotation_files, read_annotations
from vsn.data.readers.table import read_table
from vsn.data.records import RecordSet


def read_create_ml(config: DataConfig, split: str) -> RecordSet:
    """Read a CSV file with the columns `video,label,start,end` (seconds, or minutes:seconds) and optionally `split`.

    The file is `data.annotations`, or the only `.csv` in root, root/annotations or root/labels; videos are relative to
    root/videos or root. Without times a line is a whole video.
    """
    (file,) = annotation_files(config, ".csv")
    table = read_table(file, ("video", "label"), ("start", "end", "split"))
    rows = []
    for line, cells in table.rows:
        with errors_at(file, where := f"line {line}"):
            if not cells["video"] or not cells["label"]:
                raise ValueError("the video or the label is empty; every segment needs both.")
            part = parse_part(cells["start"], cells["end"])
        rows.append(Annotation(file, where, (cells["video"],), (cells["label"],), part, split=cells["split"]))
    return read_annotations(config, split, rows, notes=table.notes)


def write_create_ml(videos: Sequence[VideoLabels]) -> str:
    """Return the CSV of `read_create_ml`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "label", "start", "end"))
    for video in videos:
        for one in video.segments:
            writer.writerow((video.path.name, one.label, format_seconds(one.start), format_seconds(one.end)))
    return text.getvalue()
