"""Read .npz files with errors that name the file and the command that writes it."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray


def read_npz(
    path: Path, keys: Collection[str], *, kind: str, command: str, error_type: type[ValueError]
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file of a ``kind``, such as "scores", written by ``command``.

    Raises:
        ``error_type``: the file is missing, damaged, not an archive, or lacks one of ``keys``.
    """
    try:
        # Opened here, because np.load leaves the file open if it is not an archive.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it holds a single array")
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise error_type(f"{path} does not exist. `{command}` writes it.") from error
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise error_type(f"{path} is damaged or not a file of {kind} ({error}). Run `{command}` again.") from error
    # Any .npz opens, so a file of another kind shows only by its arrays.
    if missing := sorted(set(keys) - arrays.keys()):
        raise error_type(f"{path} is not a file of {kind}: it has arrays {sorted(arrays)[:8]}, but no {missing}.")
    return arrays
