"""Write the web page that runs an exported model in a browser: a folder for any static web server.

The page is ours (``vsn/static/web``). It needs two packages of npm, which are copied into the folder and are no part of
this package: ONNX Runtime Web runs the model, Mediabunny reads the containers of videos.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vsn.config import Recipe, WindowConfig
from vsn.config.errors import one_line
from vsn.data.background import read_labeled
from vsn.data.open import split_to_test
from vsn.data.views import PROTOCOLS
from vsn.inference.exported_metadata import ExportError, ExportMetadata
from vsn.system.files import write_json

PACKAGES = {"onnxruntime-web": "1.30.0", "mediabunny": "1.61.0"}
"""Versions that the page was tested with."""
LIBRARIES = {
    "onnxruntime-web": {
        "dist/ort.wasm.min.mjs": "ort.wasm.js",
        "dist/ort-wasm-simd-threaded.mjs": "ort-wasm.js",
        "dist/ort-wasm-simd-threaded.wasm": "ort-wasm.wasm",
        "dist/ort.webgpu.min.mjs": "ort.webgpu.js",
        "dist/ort-wasm-simd-threaded.asyncify.mjs": "ort-asyncify.js",
        "dist/ort-wasm-simd-threaded.asyncify.wasm": "ort-asyncify.wasm",
    },
    "mediabunny": {"dist/bundles/mediabunny.min.mjs": "mediabunny.js", "LICENSE": "mediabunny.LICENSE.txt"},
}
"""By package, the files that are copied, and their names in ``lib``: web servers know the type of .js, some of them not that
of .mjs, which browsers then refuse to run."""
_PAGE_FILES = ("index.html", "page.css", "page.js", "pixels.js", "sampling.js", "video.js", "worker.js")
_NPM_SECONDS = 600


def check_page(recipe: Recipe) -> None:
    """Raise `ExportError` for a model whose clips the page cannot make."""
    model = recipe.model
    if model.modality == "flow" or model.extra_input:
        needed = "flow" if model.modality == "flow" else model.extra_input
        raise ExportError(
            f"The page cannot compute {needed}, which {model.name} takes. Export a run with model.modality 'rgb' or "
            "'rgbdiff' to web, or this one to onnx."
        )
    if recipe.eval.order != "forward":
        raise ExportError(f"The page shows frames in order; eval.order is {recipe.eval.order!r}. Set it to 'forward'.")


@contextmanager
def page_libraries(node_modules: str | Path = "") -> Iterator[Path]:
    """Provide a folder with the libraries of the page, downloaded by npm or copied from a ``node_modules`` folder.

    Raises:
        ExportError: there is no npm, it cannot download, or the folder has not the packages.
    """
    with tempfile.TemporaryDirectory(prefix="vsn-web-") as name:
        folder = Path(name) / "lib"
        folder.mkdir()
        if node_modules:
            _copy_installed(Path(node_modules), folder)
        else:
            _download(Path(name), folder)
        yield folder


def _copy_installed(node_modules: Path, folder: Path) -> None:
    for package, members in LIBRARIES.items():
        for member, target in members.items():
            source = node_modules / package / member
            if not source.is_file():
                raise ExportError(
                    f"{source} does not exist. --node-modules takes the folder node_modules that "
                    f"`{_install_command()}` makes."
                )
            shutil.copyfile(source, folder / target)


def _download(temporary: Path, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(
            "Export to web needs npm to download ONNX Runtime Web and Mediabunny, and there is none. Install Node.js, or "
            f"run `{_install_command()}` on another machine, copy its folder node_modules here, and name it with "
            "--node-modules."
        )
    specs = [f"{package}@{version}" for package, version in PACKAGES.items()]
    command = [npm, "pack", *specs, "--pack-destination", str(temporary), "--ignore-scripts", "--loglevel=error"]
    try:
        result = subprocess.run(command, cwd=temporary, capture_output=True, text=True, timeout=_NPM_SECONDS)
    except subprocess.TimeoutExpired:
        raise ExportError(f"npm did not download {', '.join(specs)} within {_NPM_SECONDS} seconds.") from None
    if result.returncode:
        raise ExportError(
            f"npm could not download {', '.join(specs)} ({one_line(result.stderr.strip() or result.stdout)}). Without a "
            "connection name a folder node_modules with --node-modules."
        )
    for package, members in LIBRARIES.items():
        archive = temporary / f"{package}-{PACKAGES[package]}.tgz"
        with tarfile.open(archive) as packed:
            for member, target in members.items():
                content = packed.extractfile(f"package/{member}")
                assert content is not None, member
                with content, open(folder / target, "wb") as file:
                    shutil.copyfileobj(content, file)


def _install_command() -> str:
    return "npm install " + " ".join(f"{package}@{version}" for package, version in PACKAGES.items())


@dataclass(frozen=True)
class Example:
    """A video that visitors of the page can try."""

    path: Path
    label: str


def find_examples(recipe: Recipe, count: int) -> list[Example]:
    """Return whole video files of the test split, at equal distances in its list.

    Raises:
        ConfigError: the data set cannot be read.
        ExportError: it has fewer video files.
    """
    if not count:
        return []
    split = split_to_test(recipe)
    records = read_labeled(recipe.data, split)
    whole = [record for record in records.records if record.part is None and record.path.is_file() and record.labels]
    if len(whole) < count:
        raise ExportError(f"Split {split!r} has {len(whole)} whole video files, and --examples asks for {count}.")
    chosen = (whole[number * len(whole) // count] for number in range(count))
    return [Example(record.path, records.classes[record.label]) for record in chosen]


def write_page(
    folder: Path,
    metadata: ExportMetadata,
    libraries: Path,
    *,
    window_seconds: float | None = None,
    examples: Sequence[Example] = (),
) -> None:
    """Write the page next to the ``model.onnx`` of a folder.

    Args:
        folder: of the page.
        metadata: of the model.
        libraries: from `page_libraries`.
        window_seconds: length of the windows of timelines and of the camera; None: the page has neither.
        examples: videos to copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    static = files("vsn") / "static"
    for name in _PAGE_FILES:
        (folder / name).write_bytes((static / "web" / name).read_bytes())
    # The looks, and how labels are drawn, are those of the page of `vsn serve`.
    for name, source in (("serve.css", "serve.css"), ("parts.js", "parts.js"), ("favicon.svg", "serve.svg")):
        (folder / name).write_bytes((static / source).read_bytes())
    shutil.copytree(libraries, folder / "lib", dirs_exist_ok=True)
    listed = []
    for number, example in enumerate(examples, 1):
        (folder / "examples").mkdir(exist_ok=True)
        # Not the name of the file, which may tell more than visitors should know.
        name = f"examples/{number}{example.path.suffix.lower()}"
        shutil.copyfile(example.path, folder / name)
        listed.append({"file": name, "label": example.label})
    # Last: a page without it says that it is not complete.
    write_json(folder / "model.json", describe_model(metadata, window_seconds=window_seconds) | {"examples": listed})


def describe_model(metadata: ExportMetadata, *, window_seconds: float | None = None) -> dict[str, object]:
    """Return what the page needs to make clips of videos and to show labels, for JSON."""
    recipe, windows = metadata.to_recipe(), WindowConfig()
    clip, plan = recipe.clip, PROTOCOLS[recipe.eval.protocol]
    described = json.loads(metadata.to_json())
    del described["recipe"]
    return described | {
        "name": recipe.model.name,
        "task": recipe.data.task,
        "average": recipe.eval.average,
        "clips": plan.clips,
        "crops": plan.crops,
        # A protocol with a T of its own (TSN's) takes segments, however the model was trained.
        "sampling": "segment" if plan.num_frames else clip.sampling,
        "clip_rate": clip.frames_per_second,
        "by": clip.by,
        "short_side": clip.short_side,
        "crop_size": clip.crop_size,
        "num_consecutive": recipe.model.num_consecutive,
        "takes_windows": window_seconds is not None,
        "window_seconds": window_seconds,
        "windows": {"smooth": windows.smooth, "enter": windows.enter, "leave": windows.leave},
    }
