"""Run everything that needs a GPU in under ten minutes: tests, speeds, a training.

    python benchmarks/gpu_suite.py --out results/gpu [--minutes 9.5] [--parts tests table6 ...] [--tiny]

Each part runs in a new process with its share of the time; if it fails or hangs, its output is recorded and the next part
starts. OUT gets one JSON per part, and summary.json, updated after each. `--tiny` is a smoke test on a CPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json

PARTS: dict[str, float] = {
    "tests": 3.5,
    "operations": 1.5,
    "table6": 2.5,
    "networks": 2.5,
    "training_speed": 1.5,
    "flow": 1.0,
    "training": 2.0,
}
"""Part -> weight of its share of the time."""
MIN_SECONDS = 50.0
"""A part with less time is skipped: imports and the first kernels take half of it, and the grace most of the rest."""
GRACE_SECONDS = 20.0
"""A part that runs until this long before its limit gets a SIGINT, to write what it has."""

TINY_SECONDS = 300.0
"""Extra time of a tiny part, which only has to finish."""


def run_part(name: str, out: Path, seconds: float, tiny: bool) -> dict[str, Any]:
    """Run one part in a new process; return ok, seconds, and the end of its output if it failed."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("gpu_parts.py")),
        name,
        "--out",
        str(out / f"{name}.json"),
    ]
    command += ["--seconds", f"{seconds:.0f}", *(["--tiny"] if tiny else [])]
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if tiny:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "VSN_TEST_DEVICE": "cpu"}
    begin = time.monotonic()
    # A new session, so that the processes a part has started can be killed with it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
        start_new_session=True,
    )  # fmt: skip
    limit = seconds + (TINY_SECONDS if tiny else 0)
    interrupted, output = False, ""
    try:
        try:
            output, _ = process.communicate(timeout=max(1.0, limit - GRACE_SECONDS))
        except subprocess.TimeoutExpired:
            interrupted = True
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=GRACE_SECONDS)
        failed = f"exit status {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        kill_group(process)
        output, _ = process.communicate()
        failed = f"killed after {limit:.0f} seconds"
    except BaseException:
        kill_group(process)
        raise
    result: dict[str, Any] = {
        "ok": not failed, "seconds": round(time.monotonic() - begin, 1), "stopped_by_time": interrupted,
        "file": f"{name}.json" if (out / f"{name}.json").is_file() else None,
    }  # fmt: skip
    return result | ({"failed": failed, "output": output[-6000:]} if failed else {})


def kill_group(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, 9)
    else:
        process.kill()


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    summary: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/gpu_suite.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "system": platform.platform(),
        "parts": {},
    }
    for number, name in enumerate(options.parts):
        (options.out / f"{name}.json").unlink(missing_ok=True)  # from an earlier run
        rest = options.parts[number:]
        # The parts that follow share the time that a part leaves unused.
        left = end - time.monotonic()
        seconds = left * PARTS[name] / sum(PARTS[part] for part in rest)
        if seconds < MIN_SECONDS and not options.tiny:
            result: dict[str, Any] = {"ok": False, "failed": f"no time left: {seconds:.0f} seconds"}
        else:
            print(f"{name}: up to {seconds:.0f} seconds", flush=True)
            result = run_part(name, options.out.absolute(), seconds, options.tiny)
        summary["parts"][name] = result
        write_json(options.out / "summary.json", summary)
        print(f"{name}: {'done' if result['ok'] else 'FAILED, ' + result['failed']}", flush=True)
        if not result["ok"]:
            print(result.get("output", "")[-1500:], flush=True)
    failed = [name for name, result in summary["parts"].items() if not result["ok"]]
    print(f"{options.out / 'summary.json'}: {len(options.parts) - len(failed)} of {len(options.parts)} parts done.")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
