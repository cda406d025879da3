"""All that a GPU can tell, in one command of under ten minutes: tests, speeds, a training.

    python benchmarks/gpu_suite.py --out results/gpu [--minutes 9.5] [--parts tests table6 ...] [--tiny]

The parts run one after the other, each in a process of its own with its share of the time: one that fails or hangs is
recorded with what it said, and the rest goes on. OUT holds a JSON for each part, and summary.json, which is written anew
after each. `--tiny` runs everything at tiny sizes on a CPU, to see that it runs.
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
"""Weight of each part's share of the time."""
LEAST_SECONDS = 20.0
"""Below which a part is not begun."""
GRACE_SECONDS = 20.0
"""Before the end of its time a part that still runs is asked, by Ctrl-C, to write what it has."""

TINY_SECONDS = 300.0
"""More time for a tiny part: what it is for is to run at all."""


def run_part(name: str, out: Path, seconds: float, tiny: bool) -> dict[str, Any]:
    """One part in a process of its own: ok, seconds, and the end of what it said where it failed."""
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
    # A session of its own, so that what a part has started ends with it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
        start_new_session=True,
    )  # fmt: skip
    limit = seconds + (TINY_SECONDS if tiny else 0)
    asked, said = False, ""
    try:
        try:
            said, _ = process.communicate(timeout=max(1.0, limit - GRACE_SECONDS))
        except subprocess.TimeoutExpired:
            asked = True
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=GRACE_SECONDS)
        failed = f"it ended with status {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        end_group(process)
        said, _ = process.communicate()
        failed = f"it was ended after {limit:.0f} seconds"
    except BaseException:
        end_group(process)
        raise
    found: dict[str, Any] = {
        "ok": not failed, "seconds": round(time.monotonic() - begin, 1), "stopped_by_time": asked,
        "file": f"{name}.json" if (out / f"{name}.json").is_file() else None,
    }  # fmt: skip
    return found | ({"failed": failed, "said": said[-6000:]} if failed else {})


def end_group(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, 9)
    else:
        process.kill()


def main() -> None:
    keep_freed_memory()  # as the command does
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
        (options.out / f"{name}.json").unlink(missing_ok=True)  # of an earlier call
        rest = options.parts[number:]
        # What a part leaves over is shared among those after it.
        left = end - time.monotonic()
        seconds = left * PARTS[name] / sum(PARTS[part] for part in rest)
        if seconds < LEAST_SECONDS and not options.tiny:
            found: dict[str, Any] = {"ok": False, "failed": f"no time was left: {seconds:.0f} seconds"}
        else:
            print(f"{name}: up to {seconds:.0f} seconds", flush=True)
            found = run_part(name, options.out.absolute(), seconds, options.tiny)
        summary["parts"][name] = found
        write_json(options.out / "summary.json", summary)
        print(f"{name}: {'done' if found['ok'] else 'FAILED, ' + found['failed']}", flush=True)
        if not found["ok"]:
            print(found.get("said", "")[-1500:], flush=True)
    failed = [name for name, found in summary["parts"].items() if not found["ok"]]
    print(f"{options.out / 'summary.json'}: {len(options.parts) - len(failed)} of {len(options.parts)} parts are done.")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
