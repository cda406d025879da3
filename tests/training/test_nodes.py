"""Two machines under torchrun, as two network namespaces: one dies in the middle of a run, which then goes on."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.helpers.ranks import run_ranks, train_quietly
from tests.helpers.tiny_runs import assert_same_weights, metrics_of, tiny_recipe
from vsn.config.recipes import dump_recipe

pytestmark = pytest.mark.needs("netns")
PORT = 29511
ADDRESSES = ("10.217.0.1", "10.217.0.2")  # of the two namespaces, which no other network reaches


class Nodes:
    """Two network namespaces, joined by a cable."""

    def __init__(self) -> None:
        self.names = [f"vsn{os.getpid()}{letter}" for letter in "ab"]

    def _run_ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def create(self) -> None:
        for name in self.names:
            self._run_ip("netns", "add", name)
        a, b = self.names
        self._run_ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            self._run_ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            self._run_ip("-n", name, "link", "set", "eth0", "up")
            self._run_ip("-n", name, "link", "set", "lo", "up")

    def delete(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    @contextlib.contextmanager
    def torchrun(self, node: int, job: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run vsn under torchrun on one node; whatever is left of it is killed at the end."""
        # The folder is shared, the loopback interface is not: Gloo is told which other one there is.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
        launcher = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", job,
            # Names do not resolve there: which node is the host has to be told, and the address of each.
            "--rdzv-conf", f"is_host={int(node == 0)}", "--local-addr", ADDRESSES[node],
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}",
        ]  # fmt: skip
        command = ["ip", "netns", "exec", self.names[node], *launcher, "-m", "vsn", *arguments]
        with (folder / f"{job}-{node}.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
            )
        try:
            yield process
        finally:
            kill_node(process)


def kill_node(process: subprocess.Popen[str]) -> None:
    """Kill torchrun and its workers at once, as a machine that loses its power."""
    # torchrun starts its workers in sessions of their own.
    with contextlib.suppress(psutil.NoSuchProcess):
        for worker in psutil.Process(process.pid).children(recursive=True):
            worker.kill()
    process.kill()
    process.wait()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    try:
        nodes.create()
        yield nodes
    finally:
        nodes.delete()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1], ids=["the node of rank 0", "the other node"])
def test_a_node_that_dies(nodes: Nodes, tiny_data: Path, tmp_path: Path, killed: int):
    recipe = tiny_recipe(tiny_data, lr=1e-3, epochs=12)
    recipe = replace(recipe, model=replace(recipe.model, dropout=0.0))
    (tmp_path / "mine.toml").write_text(dump_recipe(recipe))
    metrics = tmp_path / "run" / "metrics.jsonl"
    begin = ("train", "mine.toml", "--out", "run")
    with nodes.torchrun(0, "first", tmp_path, *begin) as a, nodes.torchrun(1, "first", tmp_path, *begin) as b:
        while not metrics.exists() or metrics.read_text().count("\n") < 2:
            assert a.poll() is None, (tmp_path / "first-0.log").read_text()[-2000:]
            time.sleep(0.02)
        dead, alive = (a, b) if killed == 0 else (b, a)
        kill_node(dead)
        # The other one notices, and does not wait for ever.
        assert alive.wait(60) != 0
    epochs_before = metrics.read_text().count("\n")
    assert epochs_before < 12
    go_on = ("train", "--resume", "run")
    with nodes.torchrun(0, "second", tmp_path, *go_on) as a, nodes.torchrun(1, "second", tmp_path, *go_on) as b:
        assert (a.wait(120), b.wait(120)) == (0, 0), (tmp_path / "second-0.log").read_text()[-2000:]
    # What a user of torch reads is ours alone: warnings of its parts would be repeated by every process.
    assert "Warning: " not in (tmp_path / "second-0.log").read_text()
    # Nothing was lost: the run is that of two processes which nobody interrupted, to the last bit.
    run_ranks(2, train_quietly, recipe, tmp_path / "whole")
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
