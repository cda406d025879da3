"""Write files for phones and boards: ExecuTorch's ``.pte`` and LiteRT's ``.tflite``; `vsn.inference.edge` opens them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vsn.config.distribution import install_command
from vsn.inference.edge import TFLITE_IDENTIFIER
from vsn.inference.exported_metadata import KEY, ExportMetadata, import_package

INSTALL = {"executorch": install_command("executorch"), "litert": "pip install litert-torch"}
"""How to install what writes a format. pip cannot resolve LiteRT's converter together with this package, because a package
behind it caps typing-extensions, so it is no extra; it works beside it in spite of pip's warning."""


def write_executorch(program: torch.export.ExportedProgram, path: Path, metadata: ExportMetadata) -> None:
    """Write a ``.pte`` whose convolutions run in XNNPACK, which every phone's CPU has."""
    exir = _import("executorch", "executorch.exir")
    partitioner = _import("executorch", "executorch.backends.xnnpack.partition.xnnpack_partitioner")
    lowered = exir.to_edge_transform_and_lower(
        program, partitioner=[partitioner.XnnpackPartitioner()], constant_methods={KEY: metadata.to_json()}
    )
    path.write_bytes(lowered.to_executorch().buffer)


def write_litert(
    program: torch.export.ExportedProgram, frames: torch.Tensor, path: Path, metadata: ExportMetadata
) -> None:
    """Convert a traced model to a ``.tflite``; `frames` as it was traced with."""
    _import("litert", "litert_torch").convert(program.module(), (frames,)).export(os.fspath(path))
    schema, flatbuffers = (_import("litert", name) for name in ("ai_edge_litert.schema_py_generated", "flatbuffers"))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(metadata.to_json().encode(), np.uint8)
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(path.stat().st_size)
    builder.Finish(model.Pack(builder), TFLITE_IDENTIFIER)
    path.write_bytes(builder.Output())


def _import(to: str, package: str) -> Any:
    return import_package(package, f"Export to {to}", command=INSTALL[to])
