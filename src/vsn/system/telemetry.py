"""Keep packages that run our models from reporting to their makers: videos, and the machines that watch, are private."""

from __future__ import annotations

import os
import sys
from typing import Any


def stop_telemetry(package: str) -> None:
    """Have a package send nothing about its use; call it before the package is imported.

    A choice of the user (the variable is set, or the package that sends is imported) is left as it is.

    Args:
        package: its name for the import statement; nothing happens for one that does not report.
    """
    match package:
        case "onnxruntime":
            # It sends an identifier of the machine, sessions and models, and stores what it could not send.
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        case "openvino" | "nncf":
            # Their sender is a package of its own, without which they send nothing: it counts as not installed.
            modules: dict[str, Any] = sys.modules
            modules.setdefault("openvino_telemetry", None)
        case "mlflow":
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
