"""Compare forms of the temporal shift in exported VSN networks, and count the bytes that each moves.

    python benchmarks/shift_forms.py results/export-forms-cpu.json [--name vsn_resnet50] [--rounds 15] [--threads 2]

The shift before a 1x1 convolution can also be computed as a sum of two convolutions, of which one takes only the shifted
quarter of the channels, or by shifting what the convolution returns. "none" leaves the shift out, which computes something
else: it is what a shift without cost would take. Networks alternate in every round.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from common import describe_run
from export import measure, open_all
from vsn.config import ExportConfig
from vsn.export import form
from vsn.export.check import generated_clips
from vsn.export.form import shift_by_slices
from vsn.export.write import trace, write_onnx
from vsn.inference.exported_metadata import ExportError, import_package
from vsn.models import create_model
from vsn.models.layers import ShiftConv2d
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json


def shifted_quarter(layer: ShiftConv2d, frames: Tensor) -> Tensor:
    """Return the channels that move, `(B*T, 2 * (C // shift_div), H, W)`."""
    moved = 2 * (frames.shape[1] // layer.shift_div)
    return shift_by_slices(frames[:, :moved], layer.num_frames, 2)


def slices(layer: ShiftConv2d, frames: Tensor) -> Tensor:
    return nn.Conv2d.forward(layer, shift_by_slices(frames, layer.num_frames, layer.shift_div))


def zeroed_columns(layer: ShiftConv2d, frames: Tensor) -> Tensor:
    quarter = shifted_quarter(layer, frames)
    weight = layer.weight.clone()
    weight[:, : quarter.shape[1]] = 0
    return conv2d(frames, weight) + conv2d(quarter, layer.weight[:, : quarter.shape[1]])


def two_convolutions(layer: ShiftConv2d, frames: Tensor) -> Tensor:
    quarter = shifted_quarter(layer, frames)
    moved = quarter.shape[1]
    return conv2d(frames[:, moved:], layer.weight[:, moved:]) + conv2d(quarter, layer.weight[:, :moved])


def outputs_shifted(layer: ShiftConv2d, frames: Tensor) -> Tensor:
    fold = frames.shape[1] // layer.shift_div
    parts = [conv2d(frames[:, i * fold : (i + 1) * fold], layer.weight[:, i * fold : (i + 1) * fold]) for i in (0, 1)]
    moved = shift_by_slices(torch.cat(parts, dim=1), layer.num_frames, 2)
    back, ahead = moved.chunk(2, dim=1)
    return conv2d(frames[:, 2 * fold :], layer.weight[:, 2 * fold :]) + back + ahead


def none(layer: ShiftConv2d, frames: Tensor) -> Tensor:
    return nn.Conv2d.forward(layer, frames)


FORMS: dict[str, Callable[[ShiftConv2d, Tensor], Tensor]] = {
    "none": none,
    "slices": slices,
    "zeroed columns": zeroed_columns,
    "two convolutions": two_convolutions,
    "outputs shifted": outputs_shifted,
}


def moved_tensors(name: str, size: int) -> tuple[list[tuple[int, ...]], dict[str, float]]:
    """Return the shapes of what the shifts of a network take, and the activations in MB.

    "layers" read and write them in convolutions and pooling; one pass over what is shifted reads and writes "shifted".
    """
    model = create_model(name, num_classes=174).eval()
    shapes: list[tuple[int, ...]] = []
    layers = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal layers
        layers += 4 * (inputs[0].numel() + output.numel())
        if isinstance(module, ShiftConv2d):
            shapes.append(tuple(inputs[0].shape))

    # Batch normalization and ReLU are part of the convolution before them in these runtimes.
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 8, 3, size, size, dtype=torch.uint8))
    shifted = 2 * 4 * sum(math.prod(shape) for shape in shapes)
    return shapes, {"layers": layers / 1e6, "shifted": shifted / 1e6}


def copies(shapes: Sequence[tuple[int, ...]]) -> Callable[[object], None]:
    """Return a function that copies each tensor once: the least that a shift of its own can take."""
    pairs = [(torch.ones(shape), torch.zeros(shape)) for shape in shapes]

    def run(_: object) -> None:
        for source, target in pairs:
            target.copy_(source)

    return run


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--name", default="vsn_resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    clip = generated_clips((1, 8, 3, options.size, options.size))
    model = create_model(options.name, num_classes=174).eval()
    facts = describe_run(__file__, [options.output.name, *sys.argv[2:]])
    shapes, megabytes = moved_tensors(options.name, options.size)
    facts |= {"seed": 0, "megabytes": megabytes, "runtimes": {}, "left_out": {}}
    for name in ("onnxruntime", "openvino"):
        facts["versions"][name] = import_package(name, "This benchmark").__version__
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, forward in FORMS.items():
            form._ExportShiftConv2d.forward = forward
            files[name] = Path(folder) / f"{len(files)}.onnx"
            program = trace(form.ExportForm(model), torch.from_numpy(clip).repeat(2, 1, 1, 1, 1), any_size=False)
            write_onnx(program, files[name], None, opset=ExportConfig.opset)
        for runtime in ("onnxruntime fp32", "openvino fp32"):
            calls = {"copies alone": copies(shapes)}
            for name, file in files.items():
                try:
                    calls |= open_all(runtime, {name: file}, options.threads)
                except ExportError as error:  # an error in one of the runtime's own optimizations
                    facts["left_out"][f"{runtime} {name}"] = str(error)
            facts["runtimes"][runtime] = measure(calls, clip, options.rounds, base="none")
            for name, figures in facts["runtimes"][runtime].items():
                print(
                    f"{runtime:18} {name:18} {figures['latency_ms']['median']:8.1f} ms  {figures['to_none']['ratio']:.2f}"
                )
            write_json(options.output, facts)


if __name__ == "__main__":
    main()
