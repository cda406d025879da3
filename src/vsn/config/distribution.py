"""Name the distribution that is installed: its version and how to add an extra."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

# The package index has another project under the name of the import package.
DISTRIBUTION = "vsn-video"


def installed_version() -> str:
    """The installed version; "0+unknown" in a source tree that was never installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"


_TRAIN_PACKAGES = ("torch", "torchvision", "safetensors", "sklearn", "tensorboard")
"""Packages that only the extra ``train`` installs."""


def explain_missing(error: ModuleNotFoundError, what: str) -> str | None:
    """Say what to install for something that needs a package of the extra ``train``; None for another package.

    Exported files are used without PyTorch, everything else needs it.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _TRAIN_PACKAGES:
        return None
    name = "PyTorch" if package in ("torch", "torchvision") else package
    return (
        f"{what} needs {name}, which is not installed: {install_command('train')}. Without it, vsn predict, stream, "
        "features and serve take files that `vsn export` wrote (.onnx, .xml)."
    )


def install_command(extra: str) -> str:
    """The command that adds an extra of ``pyproject.toml``, for a message about a missing package."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'
