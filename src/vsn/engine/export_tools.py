"""What exporting leans on: packages of the extra ``export``, asked for by name, and kept quiet."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any


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
