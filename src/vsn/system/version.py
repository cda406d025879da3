"""Read the version of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version of the installed `vsn`; "0+unknown" in a source tree that was never installed."""
    try:
        return version("vsn")
    except PackageNotFoundError:
        return "0+unknown"
