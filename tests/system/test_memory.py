"""The memory that control groups of Linux leave to a process."""

from pathlib import Path

import pytest

from vsn.system.memory import _left_in_groups, available_bytes


def group(folder: Path, limit: str, used: int, cached: int, *, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    for name, value in zip(
        (*names, "memory.stat"), (limit, used, f"x 1\n{'total_' * (version == 1)}inactive_file {cached}"), strict=True
    ):
        (folder / name).write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("version", "line", "mount"),
    [(2, "0::/job/step", ""), (1, "4:cpu,memory:/job/step", "memory")],
)
def test_limits_of_a_group_and_its_parents(version: int, line: str, mount: str, tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text(f"9:name=systemd:/other\n{line}\n")
    root = tmp_path / "fs" / mount
    root.mkdir(parents=True)
    assert list(_left_in_groups(membership, tmp_path / "fs")) == []  # no group has a limit that can be read
    group(root / "job/step", "1000", 700, 100, version=version)
    group(root / "job", "900", 1000, 50, version=version)
    group(root, "max" if version == 2 else str(2**62), 10, 0, version=version)
    assert list(_left_in_groups(membership, tmp_path / "fs"))[:2] == [400, 0]
    group(root / "other", "1", 1, 0, version=version)


def test_in_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    """The path is that of the host, which the container does not see."""
    (tmp_path / "membership").write_text("0::/docker/abc\n")
    group(tmp_path / "fs", "4096", 96, 0, version=2)
    assert list(_left_in_groups(tmp_path / "membership", tmp_path / "fs")) == [4000]


def test_no_groups(tmp_path: Path) -> None:
    assert list(_left_in_groups(tmp_path / "none", tmp_path)) == []
    assert available_bytes() > 2**20
