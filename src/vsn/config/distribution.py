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


def install_command(extra: str) -> str:
    """The command that adds an extra of ``pyproject.toml``, for a message about a missing package."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'
