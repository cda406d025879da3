"""Open files for phones and boards, ExecuTorch's ``.pte`` and LiteRT's ``.tflite``, and read their metadata.

Both take the frames of one clip, ``(T, C, H, W)``. Their metadata is a method of the ``.pte`` that returns the text, and a
metadata entry of the ``.tflite``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.config.errors import one_line
from vsn.inference.exported_metadata import KEY, ExportError, import_package

TFLITE_IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of a ``.tflite``."""


def open_executorch(path: str | Path, num_threads: int) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Open a ``.pte``; return a function from the frames of a clip to its logits ``(1, num_classes)``.

    All files of a process share ``num_threads``, 0 for a thread on each CPU: those of the last that states another number.
    """
    import torch  # which the runtime of ExecuTorch needs

    if num_threads:
        _set_executorch_threads(num_threads)
    method = _executorch_method(path, "forward")

    def run(frames: NDArray[Any]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = _execute(method, [torch.from_numpy(frames)]).numpy().copy()
        return logits

    return run


def open_litert(path: str | Path, num_threads: int) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Open a ``.tflite``; return a function from the frames of a clip to its logits ``(1, num_classes)``."""
    litert = import_package("ai_edge_litert.interpreter", "A .tflite file", extra="litert")
    interpreter = litert.Interpreter(model_path=os.fspath(path), num_threads=num_threads or None)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(frames: NDArray[Any]) -> NDArray[np.float32]:
        interpreter.set_tensor(taken["index"], frames)
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(given["index"])
        return logits

    return run


def read_executorch_metadata(path: Path) -> str | None:
    """Read the text that the metadata's method returns; None if the file has no such method."""
    method = _executorch_method(path, KEY)
    return None if method is None else str(_execute(method, []))


def read_litert_metadata(path: Path) -> str | None:
    """Read the metadata entry; None if the file has none."""
    schema = import_package("ai_edge_litert.schema_py_generated", "A .tflite file", extra="litert")
    content = path.read_bytes()
    if content[4:8] != TFLITE_IDENTIFIER:
        raise ExportError(f"{path} is damaged or not an exported model (it does not begin as a .tflite file).")
    model = schema.Model.GetRootAs(content, 0)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == KEY.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode()
    return None


@lru_cache(maxsize=1)
def _set_executorch_threads(number: int) -> None:
    bindings = import_package("executorch.extension.pybindings.portable_lib", "A .pte file", extra="executorch")
    bindings._unsafe_reset_threadpool(number)  # there is no other way; unsafe while a file runs


def _executorch_method(path: str | Path, name: str) -> Any:
    """Load a method of a ``.pte``; None if it has none of this name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the runtime calls itself experimental
        runtime = import_package("executorch.runtime", "A .pte file", extra="executorch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = runtime.Runtime.get().load_program(Path(path))
            return program.load_method(name) if name in program.method_names else None
    except Exception as error:
        raise ExportError(f"{path} is damaged or not an exported model ({one_line(error)}).") from error


def _execute(method: Any, inputs: list[Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above, each time
        return method.execute(inputs)[0]
