"""Describe the machine and the installation, also one in which packages are missing or do not load."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from vsn.config.distribution import DISTRIBUTION, installed_version
from vsn.config.errors import one_line
from vsn.system.limits import available_bytes, num_cpus

# Those that change results, speed or the devices that are seen.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "WORLD_SIZE",
)
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16", "i8mm")


def describe_environment() -> dict[str, str]:
    """Return what a bug report needs, by name: nothing in it tells users, hosts or folders.

    A package that is missing or does not load is described by its error: that is when people report bugs.
    """
    import psutil

    facts = {
        "vsn": installed_version(),
        "python": f"{platform.python_version()} ({platform.python_implementation()}), "
        + ("a virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"),
        "system": platform.platform(),
        "processor": f"{processor()}; {_features()}",
        "cores": f"{num_cpus()} of {os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB, {available_bytes() / 2**30:.1f} GiB free",
    }
    facts |= {
        name: _try(describe)
        for name, describe in {
            "torch": _torch,
            "torchvision": lambda: _import_version("torchvision"),
            "GPUs": _gpus,
            "PyAV": _pyav,
            "ffmpeg (program)": _ffmpeg,
        }.items()
    }
    facts |= {f"extra {extra}": ", ".join(map(_package, names)) for extra, names in _extras().items()}
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    return facts | {"variables": " ".join(variables) or "none that matter"}


def processor() -> str:
    """The model of the processor."""
    # platform.processor() is empty or "x86_64" on Linux; the kernel knows the model's name.
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """A field of the first processor in Linux's table; "" on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == key), "")


def _features() -> str:
    """The instructions that decide how fast networks run."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return " ".join(name for name in _FEATURES if name in flags) or f"{platform.machine()}, features unknown"


def _try(describe: Callable[[], str]) -> str:
    # A broken library raises anything when it is imported: OSError for a missing .so, AttributeError for a wrong pair.
    try:
        return describe()
    except Exception as error:
        return f"not usable: {type(error).__name__}: {one_line(error)}"


def _import_version(package: str) -> str:
    return str(__import__(package).__version__)


def _torch() -> str:
    import torch

    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs"
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__}, built for {built_for}; {kernels} kernels, {torch.get_num_threads()} threads"


def _gpus() -> str:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        gpus = [torch.cuda.get_device_properties(i) for i in range(count)]
        return ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB, {gpu.major}.{gpu.minor})" for gpu in gpus)
    if torch.backends.mps.is_available():
        return "Apple GPU (mps)"
    # The usual reason for "my GPU is not used": a driver without a matching build, or the other way around.
    driver = "a driver of NVIDIA is" if shutil.which("nvidia-smi") else "no driver of NVIDIA is"
    return f"none that torch can use; {driver} installed"


def _pyav() -> str:
    import av

    libraries = {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()}
    return f"{av.__version__} (libavcodec {libraries.get('libavcodec', 'unknown')})"


def _ffmpeg() -> str:
    program = shutil.which("ffmpeg")
    if program is None:
        return "not installed, and not needed"
    output = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return " ".join(output.split()[:3]).removeprefix("ffmpeg version ")


def _extras() -> dict[str, list[str]]:
    """The packages of each extra that users install."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return {}
    extras: dict[str, list[str]] = {}
    for line in lines:
        marker = re.search(r"extra == [\"']([\w-]+)[\"']", line)
        name = re.match(r"[\w.-]+", line)
        # Those of the project's own work, and extras that are made of others, say nothing about a user's installation.
        if marker and name and marker[1] not in ("dev", "all"):
            extras.setdefault(marker[1], []).append(name[0])
    return extras


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} missing"
