"""Packages that run our models report nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vsn.system.telemetry import stop_telemetry


@pytest.mark.parametrize(
    ("package", "variable"), [("onnxruntime", "ORT_DISABLE_TELEMETRY"), ("mlflow", "MLFLOW_DISABLE_TELEMETRY")]
)
def test_variables(package: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "")  # restored after the test
    monkeypatch.delenv(variable)
    stop_telemetry("numpy")
    assert variable not in os.environ
    stop_telemetry(package)
    assert os.environ[variable] in ("1", "true")
    monkeypatch.setenv(variable, "0")  # the user's choice
    stop_telemetry(package)
    assert os.environ[variable] == "0"


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_the_sender_of_openvino_counts_as_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)  # restored after the test
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    stop_telemetry(package)
    with pytest.raises(ImportError):
        __import__("openvino_telemetry")


@pytest.mark.needs("onnxruntime")
def test_nothing_is_stored_where_onnx_runtime_runs(tmp_path: Path) -> None:
    """It keeps an identifier of the machine and its reports in the home folder; not where it takes itself for tested."""
    onnx = pytest.importorskip("onnx")
    values = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    same = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", [values], [same])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "same.onnx",
    )
    home = tmp_path / "home"
    home.mkdir()
    code = "from vsn.inference.exported import onnx_session; onnx_session('same.onnx', 1)"
    run_at_home(code, home)
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.needs("openvino")
def test_nothing_is_stored_where_openvino_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    run_at_home(
        "from vsn.inference.exported_metadata import import_package; import_package('openvino', 'x').Core()", home
    )
    assert [path for path in home.rglob("*") if path.is_file()] == []


def run_at_home(code: str, home: Path) -> None:
    """Run Python with this home folder, and no variable that tells it is tested."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=home.parent, check=True)
