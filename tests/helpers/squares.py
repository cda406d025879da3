"""Videos of a square that moves, and its boxes."""

from pathlib import Path

import numpy as np

from vsn.config import DataConfig
from vsn.data.boxes.files import write_boxes
from vsn.data.per_video import stored_name
from vsn.data.readers import read_records
from vsn.data.video import open_video, write_video

NUM_FRAMES, HEIGHT, WIDTH = 9, 48, 64


def square_at(frame: int, *, start: int = 6) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of the bright square of a frame."""
    return start + 4 * frame, 10 + frame, start + 12 + 4 * frame, 26 + frame


def write_squares(path: Path, *, start: int = 6) -> list[np.ndarray]:
    """A video of a bright square that moves over black; returns its boxes as shares."""
    frames = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    boxes = []
    for number, frame in enumerate(frames):
        left, top, right, bottom = square_at(number, start=start)
        frame[top:bottom, left:right] = 255
        boxes.append(np.array([[left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT]]))
    write_video(path, frames, frames_per_second=10, crf=10)
    return boxes


def write_square_classes(root: Path) -> Path:
    """Class folders of a video each, in splits train and val, with their boxes in the folder ``boxes``."""
    for shift, split in enumerate(("train", "val")):
        for start, label in ((6 + shift, "a"), (12 + shift, "b")):
            (root / split / label).mkdir(parents=True)
            (root / "boxes" / split / label).mkdir(parents=True)
            boxes = write_squares(root / split / label / "1.mp4", start=start)
            write_boxes(root / "boxes" / split / label / "1.boxes.csv", boxes)
    return root


def lay_boxes(config: DataConfig) -> None:
    """Store one box, the middle, of every frame of every video of a data set in the folder ``boxes`` of its root."""
    for split in {config.train_split, config.val_split}:
        for record in read_records(config, split).records:
            with open_video(record.path) as video:
                frames = [np.array([[0.25, 0.25, 0.75, 0.75]])] * video.num_frames
            write_boxes(Path(config.root) / "boxes" / f"{stored_name(record.video_id)}.boxes.csv", frames)
