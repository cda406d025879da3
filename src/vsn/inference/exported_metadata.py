"""Read and write the metadata of an exported file: JSON in the file, under the key ``vsn``, read without torch.

ONNX keeps it in its metadata, OpenVINO's ``.xml`` in the runtime information, and a ``.pt2`` archive (a ZIP file) in the
member that ends in ``extra/vsn.json``; of ``.pte`` and ``.tflite`` see `vsn.inference.edge`.
"""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args
from xml.etree import ElementTree

from vsn.config import ExportFormat, InputType, Recipe
from vsn.config.distribution import install_command
from vsn.config.errors import one_line
from vsn.config.recipes import recorded_recipe
from vsn.system.telemetry import stop_telemetry

SUFFIXES: dict[ExportFormat, str] = {
    "onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "aoti": ".pt2", "executorch": ".pte", "litert": ".tflite",
}  # fmt: skip
Precision = Literal["fp32", "fp16", "int8"]
KEY = "vsn"
_ONNX_METADATA, _NAME, _VALUE = 14, 1, 2
"""Numbers of fields: ``metadata_props`` of an ONNX model, and key and value of each."""
_BYTES = 2
_LENGTHS = {1: 8, _BYTES: 0, 5: 4}
"""Kind of a field of Protocol Buffers -> bytes of its value; 0: stated before it."""
FORMAT_VERSION = 1
OUTPUTS = ("logits", "features")
"""Outputs of ONNX and OpenVINO files: scores, and the input of the classifier."""


class ExportError(ValueError):
    """A model cannot be exported with these settings, or a file cannot be used; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """What an exported file records about its model, which takes clips ``(B, num_frames, channels, height, width)``."""

    to: ExportFormat
    classes: tuple[str, ...]
    """Names, in the order of the logits."""
    num_frames: int
    channels: int
    height: int | None
    """None: any."""
    width: int | None
    input: InputType
    """uint8, or float32 in [0, 1]; the model normalizes."""
    precision: Precision
    """Of the weights; int8 includes activations."""
    preprocessing: Mapping[str, object]
    """Description of how a video becomes a clip."""
    recipe: Mapping[str, object]
    """Settings that turn a video into clips: tables model, clip, eval and a part of data."""
    vsn: str
    """The version that exported it."""
    weights: str
    """"last" or "best" of the run."""
    weights_hash: str
    """SHA-256 of the run's weights file; empty for a model without a run."""
    outputs: tuple[str, ...] = ("logits",)
    """Of the file, see `OUTPUTS`; others have logits only."""
    training_seconds: float | None = None
    """Median length of training videos, for windows of a stream; None if they were not there."""
    first_temporal: str | None = None
    """Of a network in two files the module where the second one begins, "" if that is the classifier; None: one file. The
    first, `frames_file`, computes the features of single frames, which the second takes."""
    folded: bool = False
    """Whether the model takes the frames of one clip, ``(num_frames, channels, height, width)``."""

    def to_json(self) -> str:
        """Format as one line of JSON."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, ensure_ascii=False)

    def to_recipe(self) -> Recipe:
        """Return the settings as a recipe; settings that are not recorded have their defaults."""
        return recorded_recipe(self.recipe, "the recipe of an exported file")


def frames_file(path: Path) -> Path:
    """Return the file that holds the first part of a network in two files: ``model.frames.onnx`` of ``model.onnx``."""
    return path.with_suffix(f".frames{path.suffix}")


def is_exported(path: str | Path) -> bool:
    """Return whether a path names an exported model: it has one of `SUFFIXES`, and is no folder."""
    return Path(path).suffix in SUFFIXES.values() and not Path(path).is_dir()


def read_metadata(path: str | Path) -> ExportMetadata:
    """Read the metadata of an exported file, without importing torch.

    Raises:
        ExportError: no such file, an unknown suffix, a damaged file, one that `vsn export` did not write, or another
            version of the metadata.
    """
    path = Path(path)
    readers = {
        ".onnx": _read_onnx, ".xml": _read_openvino, ".pt2": _read_pt2, ".pte": _read_pte, ".tflite": _read_tflite,
    }  # fmt: skip
    if path.suffix not in readers:
        raise ExportError(
            f"{path} is not an exported model; expected {', '.join(readers)}, as `vsn export RUN` writes."
        )
    if not path.is_file():
        raise ExportError(f"{path} does not exist. Write it with `vsn export RUN`.")
    # Each reader returns None for a healthy file without metadata, such as one from another exporter.
    try:
        text = readers[path.suffix](path)
    except ExportError:
        raise
    except Exception as error:  # of XML, ZIP, or text that is none
        reason = one_line(error)
        raise ExportError(f"{path} is damaged or not an exported model ({reason}).") from error
    if text is None:
        raise ExportError(
            f"{path} has no metadata (key {KEY!r}), so its classes and preprocessing are unknown. Write it with "
            "`vsn export RUN`."
        )
    try:
        values = json.loads(text)
        # The version is checked first: fields of another one may differ.
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise ExportError(
                f"{path} has format version {version}; this vsn reads version {FORMAT_VERSION}. Use vsn "
                f"{values.get('vsn', '')}, which wrote it, or export the run again."
            )
        metadata = ExportMetadata(
            **values | {key: tuple(values[key]) for key in ("classes", "outputs") if key in values}
        )
        if metadata.to not in get_args(ExportFormat) or metadata.input not in get_args(InputType):
            raise ValueError(f"format {metadata.to!r}, input {metadata.input!r}")
    except ExportError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: its metadata is damaged ({error}). Export the run again.") from error
    return metadata


def _read_onnx(path: Path) -> str | None:
    # A message of Protocol Buffers, of which only the metadata is read: without a package, and without the weights. To open
    # a session takes longer than a prediction.
    with path.open("rb") as file:
        for entry in _fields(file, path.stat().st_size, _ONNX_METADATA):
            texts = [
                next(_fields(io.BytesIO(entry), len(entry), number), b"").decode("utf-8") for number in (_NAME, _VALUE)
            ]
            if texts[0] == KEY:
                return texts[1]
    return None


def _fields(file: BinaryIO, size: int, wanted: int) -> Iterator[bytes]:
    """Yield the values of a field of a message of Protocol Buffers, by its number; other fields are skipped."""
    while file.tell() < size:
        # Each field is its number and the kind of its value, then the value.
        number, kind = divmod(_varint(file), 8)
        if kind == 0:
            _varint(file)
            continue
        if kind not in _LENGTHS:
            raise ValueError(f"a field of kind {kind}")
        length = _LENGTHS[kind] or _varint(file)
        if file.tell() + length > size:
            raise ValueError("it ends early")
        if kind == _BYTES and number == wanted:
            yield file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    """Read an integer of which each byte holds seven bits, the lowest first; the eighth says whether another follows."""
    value = 0
    for shift in range(0, 70, 7):
        (byte,) = file.read(1) or (128,)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number has no end")


def _read_openvino(path: Path) -> str | None:
    for _, element in ElementTree.iterparse(path):
        if element.tag == "rt_info" and (entry := element.find(KEY)) is not None:
            return entry.get("value")
        if element.tag == "layer":
            element.clear()  # a graph has thousands of layers; keep none in memory
    return None


def _read_pt2(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith(f"extra/{KEY}.json")), None)
        return archive.read(name).decode("utf-8") if name else None


def _read_pte(path: Path) -> str | None:
    from vsn.inference.edge import read_executorch_metadata

    return read_executorch_metadata(path)


def _read_tflite(path: Path) -> str | None:
    from vsn.inference.edge import read_litert_metadata

    return read_litert_metadata(path)


def import_package(package: str, purpose: str, *, extra: str = "export", command: str = "") -> Any:
    """Import a package of an extra, or one that a command installs, without its telemetry.

    Raises:
        ExportError: it is not installed.
    """
    stop_telemetry(package)
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"{purpose} needs the package {package}, which is not installed or does not load ({error}): "
            f"{command or install_command(extra)}."
        ) from error
