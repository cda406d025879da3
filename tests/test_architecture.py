"""Who may import whom, and how large files and functions may be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "vsn"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 75


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, on_import_only: bool = False) -> set[str]:
    """Modules a file imports, wherever in it; `from vsn.a import b` is `vsn.a.b` where that is a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _at_import(tree) if on_import_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return found


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


MODULES = {module_name(path): path for path in FILES}
IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def within(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def own(name: str) -> set[str]:
    return {target for target in IMPORTS[name] if within(target, "vsn")}


def test_every_room_is_found():
    assert {
        "vsn",
        "vsn.ops",
        "vsn.config",
        "vsn.cli",
        "vsn.models",
        "vsn.data.dataset",
        "vsn.engine.train",
    } <= set(MODULES)
    assert "vsn.data.dataset" in IMPORTS["vsn.engine.train"]


@pytest.mark.parametrize(
    ("room", "may"),
    [
        ("vsn.ops", ()),
        ("vsn.config", ("vsn.config",)),
        ("vsn.recipes", ("vsn.config",)),
        ("vsn.files", ()),
        ("vsn.interrupt", ()),
        ("vsn.allocator", ()),
        ("vsn.progress", ()),
        ("vsn.models", ("vsn.models", "vsn.ops", "vsn.config")),
        (
            "vsn.data.decode",
            (
                "vsn.config",
                "vsn.data.frame_folders",
                "vsn.data.frames",
                "vsn.data.packed_files",
                "vsn.data.torchcodec_files",
                "vsn.data.video_files",
            ),
        ),
        ("vsn.data.readers", ("vsn.data.readers", "vsn.data.records", "vsn.config")),
        ("vsn.data.flips", ("vsn.config",)),
        ("vsn.data.sampling", ("vsn.config",)),
        ("vsn.data.records", ("vsn.config",)),
        ("vsn.data", ("vsn.data", "vsn.config", "vsn.files", "vsn.interrupt", "vsn.progress")),
        ("vsn.engine.intervals", ()),
        ("vsn.engine.scores", ("vsn.engine.intervals", "vsn.files", "vsn.config")),
        ("vsn.engine.match", ("vsn.engine.scores",)),
        ("vsn.engine.fuse", ("vsn.engine.intervals", "vsn.engine.scores")),
        ("vsn.engine.compare", ("vsn.engine.intervals", "vsn.engine.scores")),
        ("vsn.engine.reliance", ("vsn.engine.intervals", "vsn.engine.match", "vsn.engine.scores")),
        ("vsn.engine.submit", ("vsn.engine.intervals", "vsn.engine.scores")),
        ("vsn.engine.calibrate", ("vsn.engine.intervals", "vsn.engine.scores", "vsn.files")),
        ("vsn.calibration_chart", ("vsn.engine.calibrate", "vsn.report_parts")),
        ("vsn.engine.measure", ("vsn.models", "vsn.config")),
        ("vsn.engine.optim", ("vsn.models", "vsn.config")),
        (
            "vsn.engine.checkpoint",
            (
                "vsn",
                "vsn.models",
                "vsn.data.views",
                "vsn.config",
                "vsn.files",
                "vsn.recipes",
                "vsn.allocator",
            ),
        ),
        (
            "vsn.report",
            (
                "vsn.config",
                "vsn.engine.calibrate",
                "vsn.engine.intervals",
                "vsn.engine.reliance",
                "vsn.engine.scores",
                "vsn.files",
                "vsn.recipes",
                "vsn.report",
                "vsn.report_parts",
            ),
        ),
        ("vsn.report_parts", ()),
        ("vsn.engine.gradcam", ("vsn.models", "vsn.config")),
    ],
)
def test_rooms_import_only_what_they_may(room: str, may: tuple[str, ...]):
    members = [name for name in MODULES if within(name, room)]
    assert members
    for name in members:
        # The bare package `vsn` is its version; only a room that says so may ask for it.
        bad = {
            t
            for t in own(name)
            if not (t in may or (t != "vsn" and within(t, *(m for m in may if m != "vsn"))))
        }
        assert not bad, f"{name} imports {sorted(bad)}"


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("vsn.config", ("torch", "torchvision", "numpy", "av")),
        ("vsn.cli", ()),
        ("vsn.files", ("torch", "numpy")),
        ("vsn.progress", ("torch", "numpy")),
        ("vsn.report", ("torch", "torchvision", "av")),
        ("vsn.report_parts", ("torch", "torchvision", "av")),
        ("vsn.report.page", ("torch", "torchvision", "av", "vsn.models", "vsn.data")),
        ("vsn.report.runs", ("torch", "torchvision", "av", "vsn.models", "vsn.data")),
        ("vsn.engine.train", ("vsn.engine.illustrate",)),
        ("vsn.data.decode", ("torch", "torchvision")),
        ("vsn.data.records", ("torch", "torchvision")),
        ("vsn.engine.scores", ("torch", "torchvision")),
        ("vsn.engine.evaluate", ("vsn.engine.train", "vsn.engine.predict", "vsn.engine.demo")),
        ("vsn.engine.predict", ("vsn.engine.train", "vsn.engine.demo")),
        ("vsn.engine.train", ("vsn.engine.predict", "vsn.engine.demo", "vsn.report")),
        ("vsn.engine.optim", ("vsn.engine",)),
        ("vsn.engine.measure", ("vsn.engine",)),
    ],
)
def test_rooms_never_import(room: str, never: tuple[str, ...]):
    assert room in MODULES
    bad = {target for target in IMPORTS[room] if within(target, *never)}
    assert not bad


def test_ops_imports_torch_alone():
    assert {name.split(".")[0] for name in IMPORTS["vsn.ops"]} - sys.stdlib_module_names == {"torch"}


def test_nobody_imports_the_command_line():
    users = [name for name in MODULES if any(within(target, "vsn.cli") for target in IMPORTS[name])]
    assert [name for name in users if not within(name, "vsn.cli")] == ["vsn.__main__"]


def test_only_video_files_and_versions_know_av():
    users = {name for name, targets in IMPORTS.items() if any(within(target, "av") for target in targets)}
    assert users == {
        "vsn.data.video_files",
        "vsn.data.video_facts",
        "vsn.data.live_source",
        "vsn.data.torchcodec_files",  # counts frames as video_files does
        "vsn.data.synthetic",
        "vsn.engine.checkpoint",
    }  # the latter two: its version


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "vsn.cli")])
def test_command_line_imports_verbs_when_they_run(name: str):
    at_import = {
        t for t in imported(MODULES[name], on_import_only=True) if within(t, "vsn", "torch", "numpy")
    }
    assert {t for t in at_import if not within(t, "vsn.cli")} <= {
        "vsn",
        "vsn.allocator",
        "vsn.config",
        "vsn.recipes",
    }


def test_no_cycles():
    """Modules can be put in an order in which each imports only former ones."""
    left = {name: own(name) & set(MODULES) - {name, "vsn"} for name in MODULES}
    while left:
        free = [name for name, targets in left.items() if not targets & left.keys()]
        assert free, f"cycle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_sizes(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long
