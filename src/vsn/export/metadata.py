"""Read and write the metadata of an exported file: JSON in the file, under the key ``vsn``, read without torch.

ONNX keeps it in its metadata, OpenVINO's ``.xml`` in the runtime information, and a ``.pt2`` archive (a ZIP file) in the
member that ends in ``extra/vsn.json``.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree import ElementTree

from vsn.config import ExportFormat, InputType, Recipe
from vsn.config.distribution import install_command
from vsn.config.errors import one_line
from vsn.config.recipes import recorded_recipe

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "aoti": ".pt2"}
Precision = Literal["fp32", "fp16", "int8"]
KEY = "vsn"
FORMAT_VERSION = 1


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

    def to_json(self) -> str:
        """Format as one line of JSON."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, ensure_ascii=False)

    def to_recipe(self) -> Recipe:
        """Return the settings as a recipe; settings that are not recorded have their defaults."""
        return recorded_recipe(self.recipe, "the recipe of an exported file")


def recipe_to_export(recipe: Recipe) -> Mapping[str, object]:
    """Select the settings that turn a video into clips; no paths of the machine that trained."""
    tables = recipe.to_dict()
    return {
        # weights may name a path of that machine, and the file has its own.
        "model": tables["model"] | {"weights": "none"},
        "clip": tables["clip"],
        # How videos are read, not where they are.
        "data": {key: tables["data"][key] for key in ("task", "frame_template", "decoder")},
        "eval": tables["eval"],
    }


def read_metadata(path: str | Path) -> ExportMetadata:
    """Read the metadata of an exported file, without importing torch.

    Raises:
        ExportError: no such file, an unknown suffix, a damaged file, one that `vsn export` did not write, or another
            version of the metadata.
    """
    path = Path(path)
    readers = {".onnx": _read_onnx, ".xml": _read_openvino, ".pt2": _read_pt2}
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
    except Exception as error:  # ONNX Runtime raises its own types for damaged files
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
        metadata = ExportMetadata(**values | {"classes": tuple(values["classes"])})
        if metadata.to not in get_args(ExportFormat) or metadata.input not in get_args(InputType):
            raise ValueError(f"format {metadata.to!r}, input {metadata.input!r}")
    except ExportError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: its metadata is damaged ({error}). Export the run again.") from error
    return metadata


def _read_onnx(path: Path) -> str | None:
    ort = import_package("onnxruntime", "A .onnx file")
    # ONNX Runtime reads the metadata, so that no onnx package is needed to predict.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the session never runs
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entries: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return entries.get(KEY)


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


def import_package(package: str, purpose: str) -> Any:
    """Import a package of the extra ``export``. Raises `ExportError` if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"{purpose} needs the package {package}, which is not installed or does not load ({error}): "
            f"{install_command('export')}."
        ) from error
