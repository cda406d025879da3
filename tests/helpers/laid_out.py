"""What the tests of readers share: files laid out by name, and what came of them."""

from pathlib import Path

from vsn.data.records import RecordSet

Files = dict[str, str]


def lay(root: Path, files: Files, *empty: str) -> Path:
    """Write text files, and empty ones in place of videos: readers look at names, not into files."""
    for name, text in (files | dict.fromkeys(empty, "")).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def below(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": text for name, text in files.items()}


def ids(records: RecordSet) -> list[str]:
    return [record.video_id for record in records.records]


def labels(records: RecordSet) -> list[tuple[int, ...]]:
    return [record.labels for record in records.records]


def touch(root: Path, *names: str) -> Path:
    """Make empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root
