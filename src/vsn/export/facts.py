"""What an exported file says of itself: JSON inside the file, under the name ``vsn``, read without torch.

In an ONNX file it is the entry ``vsn`` of the metadata, in OpenVINO's ``.xml`` that of the runtime information,
in a ``.pt2`` archive (a ZIP file) the member that ends in ``extra/vsn.json``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree import ElementTree

from vsn.config import ExportFormat, InputType, Recipe
from vsn.config.recipes import recipe_from_dict

SUFFIXES: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch-export": ".pt2",
    "aoti": ".pt2",
}
Precision = Literal["fp32", "fp16", "int8"]
KEY = "vsn"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What is needed to use an exported model, and to tell which model it is.

    Attributes:
        to: the format.
        classes: names, in the order of the logits.
        num_frames: T.
        channels: C of a clip ``(B, T, C, H, W)``.
        height: H in pixels, or None where any is taken.
        width: W in pixels, or None where any is taken.
        input: "uint8", or "float32" in [0, 1]; normalization is inside.
        precision: of the weights: "fp32", "fp16", or "int8" with activations alike.
        preprocessing: what is done to a video, in words.
        recipe: settings of which a video becomes clips: tables model, clip, eval and of data what matters.
        vsn: the version that exported it.
        weights: "last" or "best" of the run.
        weights_hash: SHA-256 of the run's file of weights; empty for a model without a run.
    """

    to: ExportFormat
    classes: tuple[str, ...]
    num_frames: int
    channels: int
    height: int | None
    width: int | None
    input: InputType
    precision: Precision
    preprocessing: dict[str, Any]
    recipe: dict[str, Any]
    vsn: str
    weights: str
    weights_hash: str

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, ensure_ascii=False)

    def to_recipe(self) -> Recipe:
        """The settings, as a recipe whose other settings are defaults."""
        return recipe_from_dict(self.recipe, "the recipe of an exported file")


def recipe_to_export(recipe: Recipe) -> dict[str, Any]:
    """The settings that say how a video becomes clips; no paths of the machine that trained."""
    tables = recipe.to_dict()
    data = {key: tables["data"][key] for key in ("task", "frame_template", "decoder")}
    return {
        "model": tables["model"] | {"weights": "none"},
        "clip": tables["clip"],
        "data": data,
        "eval": tables["eval"],
    }


def read_facts(path: str | Path) -> ExportFacts:
    """What an exported file says of itself; no torch is imported.

    Raises:
        ExportError: no such file, a suffix of no format, a damaged file, one that `vsn export` did not write, or
            one of another version.
    """
    path = Path(path)
    suffixes = ", ".join(dict.fromkeys(SUFFIXES.values()))
    if path.suffix not in SUFFIXES.values():
        raise ExportError(f"{path} is no exported model; their names end in {suffixes}. `vsn export RUN` writes one.")
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file. `vsn export RUN` writes one.")
    readers = {".onnx": _read_onnx, ".xml": _read_openvino, ".pt2": _read_archive}
    text = readers[path.suffix](path)
    if text is None:
        raise ExportError(
            f"{path} does not say what it was exported from (it has no entry {KEY!r}), so that its classes and "
            "preprocessing are not known. Write it with `vsn export RUN`."
        )
    try:
        values = json.loads(text)
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise ExportError(
                f"{path} has format version {version}; this vsn reads version {FORMAT_VERSION}. Use vsn "
                f"{values.get('vsn', '')}, which wrote it, or export the run again."
            )
        facts = ExportFacts(**values | {"classes": tuple(values["classes"])})
        if facts.to not in get_args(ExportFormat) or facts.input not in get_args(InputType):
            raise ValueError(f"format {facts.to!r}, input {facts.input!r}")
    except ExportError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: what it says of itself is damaged ({error}). Export the run again.") from error
    return facts


def _read_onnx(path: Path) -> str | None:
    ort = need("onnxruntime", "A .onnx file")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it runs nothing
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises types of its own
        raise _damaged(path, error) from error
    entries: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return entries.get(KEY)


def _read_openvino(path: Path) -> str | None:
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "rt_info" and (found := element.find(KEY)) is not None:
                return found.get("value")
            if element.tag == "layer":
                element.clear()  # a graph has thousands
    except ElementTree.ParseError as error:
        raise _damaged(path, error) from error
    return None


def _read_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((n for n in archive.namelist() if n.endswith(f"extra/{KEY}.json")), None)
            return archive.read(name).decode("utf-8") if name else None
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ExportError:
    return ExportError(f"{path} is damaged or no exported model ({' '.join(str(error).split())[:200]}).")


class ExportError(ValueError):
    """A model that cannot be exported as asked, or a file that was not; the message says what to do."""


def need(package: str, what: str) -> Any:
    """Import a package of the extra ``export``. Raises `ExportError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"{what} needs the package {package}, which is not installed or does not load ({error}): "
            "pip install 'vsn[export]'."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters print, log and warn about on their way off the screen; errors pass."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
