"""Programs and packages that tests use where they are installed. VSN_REQUIRE="nginx,chromium" names those that must be."""

import functools
import importlib
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "ffmpeg": ("ffmpeg",),
    # Not on the path of users other than root.
    "nginx": ("nginx", "/usr/sbin/nginx"),
    # Network namespaces, which stand for machines.
    "netns": ("unshare",),
    "openssl": ("openssl",),
    # Debian's packages of GStreamer's server belong to the Python of the system.
    "rtsp": ("/usr/bin/python3",),
}
"""Component -> names of its program."""
CHECKS = {
    # Only root may make them.
    "netns": ("--net", "ip", "link"),
    "rtsp": (
        "-c",
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
        "Gst.init(None); assert all(map(Gst.ElementFactory.find, ('videotestsrc', 'x264enc', 'rtph264pay', 'rtpbin')))",
    ),
}
"""Component -> arguments with which its program ends with 0 if what the tests need of it is there."""
MODULES = {
    "chromium": "playwright.sync_api",
    "cleanlab": "cleanlab",
    "executorch": "executorch.exir",
    "huggingface_hub": "huggingface_hub",
    "litert": "litert_torch",
    "mlflow": "mlflow",
    "nncf": "nncf",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "timm": "timm",
    "torchcodec": "torchcodec.decoders",
    "wandb": "wandb",
    "zensical": "zensical",
}
"""Component -> Python module without which its tests are skipped."""
AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
"""The accessibility checker: `npm install --prefix build/axe axe-core`, or VSN_AXE=axe.min.js."""
COMPONENTS = PROGRAMS.keys() | MODULES.keys() | {"axe"}


def check_required() -> None:
    """Raise `pytest.UsageError` when a component that VSN_REQUIRE names is not usable: its tests would be skipped."""
    names = {name.strip() for name in os.environ.get("VSN_REQUIRE", "").split(",")} - {""}
    if unknown := names - COMPONENTS:
        raise pytest.UsageError(f"VSN_REQUIRE has {sorted(unknown)}; expected some of {', '.join(sorted(COMPONENTS))}.")
    for name in sorted(names):
        if reason := missing(name):
            raise pytest.UsageError(f"VSN_REQUIRE has {name}: {reason}.")


@functools.cache
def missing(name: str) -> str:
    """Say why a component is not usable; empty if it is."""
    if name == "axe" and not axe_file().is_file():
        return f"there is no file {axe_file()}"
    if name in PROGRAMS and find_program(name) is None:
        return f"there is no {' or '.join(PROGRAMS[name])} that does what its tests need"
    if name in MODULES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a deprecation in a package is not the tests' matter
                importlib.import_module(MODULES[name])
        # Packages with libraries of their own fail in many ways.
        except Exception as error:
            return f"{MODULES[name]} cannot be imported: {error}"
    return ""


def skip_without_components(items: list[pytest.Item]) -> None:
    """Skip the tests whose mark ``needs`` names a component that is not usable."""
    for item in items:
        for name in sorted(components_of(item)):
            if reason := missing(name):
                item.add_marker(pytest.mark.skip(reason=f"needs {name}: {reason}"))


def components_of(item: pytest.Item) -> set[str]:
    """Return the components that the marks of a test name."""
    names = {name for mark in item.iter_markers("needs") for name in mark.args}
    if unknown := names - COMPONENTS:
        raise pytest.UsageError(
            f"{item.nodeid} needs {sorted(unknown)}, which tests/helpers/external.py does not know."
        )
    return names


@functools.cache
def find_program(name: str) -> str | None:
    """The path of a component's program, or None."""
    path = next(filter(None, map(shutil.which, PROGRAMS[name])), None)
    if path is not None and name in CHECKS:
        checked = subprocess.run([path, *CHECKS[name]], capture_output=True)
        return path if checked.returncode == 0 else None
    return path


def program(name: str) -> str:
    """Return the path of a component's program; without it the test is skipped."""
    path = find_program(name)
    if path is None:
        pytest.skip(f"no {name} on this machine")
    return path


def axe_file() -> Path:
    """Where axe-core is looked for."""
    return Path(os.environ.get("VSN_AXE", AXE))


def axe_source() -> str:
    """Return the script of axe-core; without it the test is skipped."""
    if not axe_file().is_file():
        pytest.skip(f"no axe-core at {axe_file()}")
    return axe_file().read_text(encoding="utf-8")


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A headless browser. Its event loop takes the thread: close it before tests that run their own."""
    path = program("chromium")
    playwright = pytest.importorskip(MODULES["chromium"], reason="no playwright to drive a browser with")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()
