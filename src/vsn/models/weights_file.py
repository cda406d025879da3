"""Write and read a file of weights: safetensors, with the model's settings and a checksum of all of it.

Reads the pickled files of other programs too, without executing code in them.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vsn.config import ModelConfig
from vsn.config.errors import one_line, quote_first

_CHECKSUM, _CLASSES = "sha256", "classes"


class NotFiniteError(ValueError):
    """Weights or outputs of a network that are NaN or infinite: its training diverged, or its precision is too low."""


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise `NotFiniteError`, which names the first ones, if tensors hold NaN or infinity.

    Batch statistics count, integers do not. It takes 7 ms for the 24 million values of a TSN-ResNet-50 on two cores.
    """
    tensors = {name: tensor.detach() for name, tensor in weights.items() if tensor.is_floating_point()}
    if not tensors:
        return
    # The norms of all tensors in one call and one synchronization with the device; `isfinite` takes a hundred times as long.
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(tensors.values()))])
    suspects = [name for name, finite in zip(tensors, norms.isfinite().tolist(), strict=True) if not finite]
    # A sum of squares overflows where no value does, above 1e19 in float32.
    if bad := [name for name in suspects if not tensors[name].isfinite().all()]:
        raise NotFiniteError(f"{len(bad)} of {len(tensors)} tensors hold NaN or infinity: {quote_first(bad)}")


def clamp_variances(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, with the batch variances that overflowed float16 at its largest value, and a warning for each.

    A file converted to float16 holds infinity where a variance of the float32 file was above 65,504, as the first layer's
    are in networks whose input is in [0, 255]. Its channel would be constant, and stay so: no update of a running average
    leaves infinity. 65,504 is the nearest value that float16 has.
    """
    clamped = dict(weights)
    for name, tensor in weights.items():
        if name.endswith("running_var") and tensor.dtype == torch.float16 and (overflowed := tensor == torch.inf).any():
            largest = torch.finfo(torch.float16).max
            clamped[name] = tensor.masked_fill(overflowed, largest)
            warnings.warn(
                f"{name}: {int(overflowed.sum())} of {tensor.numel()} values overflowed float16 when the file was written; "
                f"they are read as {largest:,.0f}.",
                stacklevel=2,
            )
    return clamped


class UnsafeFileError(ValueError):
    """A file that holds more than tensors and plain values, so that reading it could execute code."""


def write_weights(
    path: Path, weights: Mapping[str, Tensor], config: ModelConfig, *, classes: Sequence[str] = ()
) -> None:
    """Write a state dict, and with it the model's settings, its classes, and the checksum that `read_weights` compares.

    Raises:
        NotFiniteError: a weight is NaN or infinite; nothing is written.
    """
    check_finite(weights)
    # safetensors writes neither views nor tensors of a GPU.
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}
    model = json.dumps(asdict(config))
    metadata = {"model": model, _CHECKSUM: _checksum(tensors, model)}
    if classes:
        metadata[_CLASSES] = json.dumps(list(classes))
    save_file(tensors, path, metadata=metadata)


def check_class_order(path: Path, classes: Sequence[str]) -> None:
    """Check that classes are in the order in which a file of weights was trained. Files without classes are not checked.

    Raises:
        ValueError: a class has another place. New names are allowed: a class may be renamed.
    """
    with safe_open(path, framework="pt") as file:
        trained = json.loads((file.metadata() or {}).get(_CLASSES, "[]"))
    place = {name: i for i, name in enumerate(trained)}
    if any(place.get(name, i) != i for i, name in enumerate(classes)):
        raise ValueError(
            f"{path} was trained on the classes {quote_first(trained, 5)}, and classes.json has them in another order, "
            f"{quote_first(classes, 5)}. Each output would get the name of another class: restore classes.json."
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, of `write_weights` or of another program.

    Batch variances that overflowed float16 are read as `clamp_variances` says.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        ValueError: its content does not have the checksum that it states. Files without one are not checked.
        NotFiniteError: a weight is NaN or infinite.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    tensors = load_file(path)
    # safetensors compares lengths only: changed bytes would be used as weights.
    if _CHECKSUM in metadata and metadata[_CHECKSUM] != _checksum(tensors, metadata.get("model", "")):
        raise ValueError("its content has changed since it was written (wrong checksum)")
    tensors = clamp_variances(tensors)
    check_finite(tensors)
    return tensors


def read_pickled(path: Path) -> Any:
    """Read a file of `torch.save` that holds tensors and plain values.

    Raises:
        UnsafeFileError: it holds other objects.
        ValueError: it cannot be read; one line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle protocol that users cannot choose
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's long message says how to load the file in spite of it; only the name of the class is of use.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UnsafeFileError(
            "it holds more than tensors and plain values, and reading it could execute code"
            + (f": it needs {refused[1]}" if refused else "")
        ) from error
    except Exception as error:  # torch raises many types for a damaged file
        raise ValueError(one_line(f"{type(error).__name__}: {error}")) from error


def _checksum(tensors: Mapping[str, Tensor], model: str) -> str:
    """SHA-256 of the settings and of each tensor's name, type, shape and bytes, in the order of names."""
    digest = hashlib.sha256(model.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because numpy has no bfloat16; flat, because a scalar cannot be viewed as bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
