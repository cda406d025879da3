"""Describe a measurement: what every JSON file of results/ records next to the figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.runs.metadata import versions


def describe_run(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the command with these arguments, without paths of this machine; the date; versions and hardware."""
    command = ["python", f"benchmarks/{Path(script).name}", *arguments]
    return {"command": shlex.join(command), "date": datetime.now(UTC).date().isoformat(), "versions": versions()}
