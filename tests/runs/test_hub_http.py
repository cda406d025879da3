"""The real client of the hub over HTTP: what is pushed is what is pulled, and what happens when the hub refuses or fails."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch

import vsn
from tests.helpers.hub_server import READ_TOKEN, TOKEN, LoopbackHub, loopback_hub
from vsn import cli
from vsn.inference.evaluate import evaluate_run
from vsn.runs.hub import HubError, copy_run, from_pretrained, local_run, pull, push_to_hub, save_pretrained
from vsn.runs.run import RunError

# Of the client's own call of its HTTP package, in uploads.
pytestmark = [
    pytest.mark.needs("huggingface_hub"),
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def one_server() -> Iterator[LoopbackHub]:
    # One address for all tests: old versions of the client remember the first.
    with pytest.MonkeyPatch.context() as patch, loopback_hub(patch) as server:
        yield server


@pytest.fixture
def server(one_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoopbackHub:
    """An empty hub, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    one_server.clear()
    return one_server


@pytest.fixture(scope="module")
def tested_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("tested") / "run"))
    evaluate_run(run, device="cpu", num_workers=0, progress=False)
    return run


@pytest.fixture(scope="module")
def saved(tested_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(tested_run, tmp_path_factory.mktemp("saved") / "tiny", repo_id="me/tiny-vsn")


@pytest.fixture
def published(server: LoopbackHub, saved: Path) -> LoopbackHub:
    server.publish("me/tiny-vsn", saved)
    return server


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_pushed_is_what_is_pulled(server: LoopbackHub, tested_run: Path, tmp_path: Path):
    url = push_to_hub(tested_run, "me/tiny-vsn", license="mit", private=True, token=TOKEN, message="m")
    repository = server.repositories["me/tiny-vsn"]
    expected = contents(save_pretrained(tested_run, tmp_path / "saved", license="mit", repo_id="me/tiny-vsn"))
    assert repository.files("main") == {".gitattributes": b""} | expected
    assert repository.private
    assert repository.messages == ["initial commit", "m"]  # one commit: nobody sees a part
    assert url.endswith(repository.refs["main"])
    assert len(server.objects) == 1  # the weights went apart, as large files do
    assert contents(pull("me/tiny-vsn", token=TOKEN)) == expected


def test_a_second_push_leaves_no_results_of_other_weights(server: LoopbackHub, tested_run: Path, finished_run: Path):
    push_to_hub(tested_run, "me/x", token=TOKEN)
    files = server.repositories["me/x"].files("main")
    assert [path for path in files if path.startswith("eval/")] == ["eval/test-fcn-forward.json"]
    files["notes/mine.md"] = b"of another tool"
    push_to_hub(finished_run, "me/x", token=TOKEN)
    files = server.repositories["me/x"].files("main")
    assert not [path for path in files if path.startswith("eval/")]
    assert files["notes/mine.md"] == b"of another tool"


def test_push_to_a_new_branch(server: LoopbackHub, finished_run: Path):
    push_to_hub(finished_run, "me/x", token=TOKEN, branch="trial")
    repository = server.repositories["me/x"]
    assert set(repository.files("main")) == {".gitattributes"}
    assert "model.safetensors" in repository.files("trial")
    push_to_hub(finished_run, "me/x", token=TOKEN, branch="trial")


@pytest.mark.parametrize(
    ("token", "message"),
    [(None, "me/x could not be uploaded: .*401"), (READ_TOKEN, "403.*token"), ("hf_wrong", "401.*token")],
)
def test_a_push_that_is_refused(server: LoopbackHub, finished_run: Path, token: str | None, message: str):
    with pytest.raises(HubError, match=message) as error:
        push_to_hub(finished_run, "me/x", token=token)
    assert "\n" not in str(error.value)
    assert not server.repositories


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [("/commit/", 500, "later"), ("/storage/", 507, "507.*later"), ("/objects/batch", 403, "403.*token")],
)
def test_a_push_that_fails_halfway_leaves_nothing(
    server: LoopbackHub, finished_run: Path, part: str, status: int, message: str
):
    server.refuse = (part, status)
    with pytest.raises(HubError, match=f"me/x could not be uploaded: .*{message}") as error:
        push_to_hub(finished_run, "me/x", token=TOKEN)
    assert "\n" not in str(error.value)
    assert set(server.repositories["me/x"].files("main")) == {".gitattributes"}


@pytest.mark.parametrize("name", ["hf://me/tiny-vsn@v1", Path("hf://me/tiny-vsn@v1"), "commit"])
def test_revisions(server: LoopbackHub, saved: Path, tmp_path: Path, name):
    commit = server.publish("me/tiny-vsn", saved, ref="v1")
    newer = Path(shutil.copytree(saved, tmp_path / "newer"))
    (newer / "README.md").write_text("newer")
    server.publish("me/tiny-vsn", newer, "second")
    assert (local_run("hf://me/tiny-vsn") / "README.md").read_text() == "newer"
    folder = pull("me/tiny-vsn", revision=commit) if name == "commit" else local_run(name)
    assert contents(folder) == contents(saved)


def test_a_repository_is_downloaded_once_and_again_when_it_changes(published: LoopbackHub, saved: Path, tmp_path: Path):
    first = pull("me/tiny-vsn")
    num_downloads = len(published.ranges)
    assert num_downloads == len(contents(saved))
    assert pull("me/tiny-vsn") == first
    assert len(published.ranges) == num_downloads
    newer = Path(shutil.copytree(saved, tmp_path / "newer"))
    (newer / "README.md").write_text("newer")
    (newer / "notes.txt").write_text("not a file of ours")
    published.publish("me/tiny-vsn", newer, "second")
    second = pull("me/tiny-vsn")
    assert (second / "README.md").read_text() == "newer"
    assert not (second / "notes.txt").exists()
    # Only what changed came over the network, and the folder in use did not change.
    assert [path for path, _ in published.ranges[num_downloads:]] == ["README.md"]
    assert contents(first) == contents(saved)


@pytest.mark.parametrize(
    ("name", "revision", "token", "message"),
    [
        ("me/absent", None, None, "me/absent could not be downloaded: 401.*private repository needs a token"),
        ("me/absent", None, TOKEN, "404.*Check the name"),
        ("me/tiny-vsn", "v9", None, "404.*Revision Not Found"),
        ("me/tiny-vsn", None, "hf_wrong", "401.*token"),
    ],
)
def test_a_pull_that_is_refused(published: LoopbackHub, name: str, revision: str | None, token: str | None, message):
    with pytest.raises(HubError, match=message) as error:
        pull(name, revision=revision, token=token)
    assert "\n" not in str(error.value)


def test_a_private_repository_needs_a_token(published: LoopbackHub):
    published.repositories["me/tiny-vsn"].private = True
    with pytest.raises(HubError, match=r"401.*hf auth login"):
        pull("me/tiny-vsn")
    pull("me/tiny-vsn", token=READ_TOKEN)


def test_a_cut_download_goes_on_where_it_stopped(published: LoopbackHub, saved: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    weights = (saved / "model.safetensors").read_bytes()
    published.cut_after = [len(weights) // 2]
    with contextlib.suppress(HubError):  # old versions of the client do not try again by themselves
        pull("me/tiny-vsn")
    assert (pull("me/tiny-vsn") / "model.safetensors").read_bytes() == weights
    asked = [range for path, range in published.ranges if path == "model.safetensors"]
    assert asked[0] is None
    assert 0 < int(asked[1].removeprefix("bytes=").removesuffix("-")) <= len(weights) // 2


def test_half_a_download_is_no_run(published: LoopbackHub, saved: Path):
    published.refuse = ("model.safetensors", 403)  # after 500 and more the client tries for 20 seconds
    with pytest.raises(HubError, match=r"403.*token") as error:
        pull("me/tiny-vsn")
    assert "\n" not in str(error.value)
    # The other files are there by now; without a network they must not pass for the repository.
    with pytest.raises(HubError, match=r"not in the local cache|no model\.safetensors"):
        pull("me/tiny-vsn", local_files_only=True)
    published.refuse = None
    assert contents(pull("me/tiny-vsn")) == contents(saved)


def test_a_hub_that_is_down_is_not_needed_for_what_is_in_the_cache(published: LoopbackHub, saved: Path):
    first = pull("me/tiny-vsn")
    published.refuse = ("/api/", 503)
    assert pull("me/tiny-vsn") == first
    with pytest.raises(HubError, match=r"503.*later"):
        pull("me/other")


def test_commands_take_addresses(published: LoopbackHub, saved: Path, gray_video: Path, tmp_path: Path, capsys):
    cli.main(["predict", str(saved), str(gray_video), "--device", "cpu"])
    expected = capsys.readouterr().out
    cli.main(["predict", "hf://me/tiny-vsn", str(gray_video), "--device", "cpu"])
    assert capsys.readouterr().out == expected
    out = tmp_path / "f.npz"
    cli.main(["features", "hf://me/tiny-vsn", str(gray_video), "--out", str(out), "--device", "cpu"])
    assert np.load(out)["features"].shape == (1, 256)


def test_a_copy_can_be_tested_and_started_from(published: LoopbackHub, tiny_data: Path, tmp_path: Path):
    run = copy_run("me/tiny-vsn", tmp_path / "mine")
    result = evaluate_run(run, root=tiny_data, device="cpu", num_workers=0, progress=False)
    assert result["num_videos"] == 3
    model = vsn.create_model("tsm_resnet14_tiny", num_classes=2, num_frames=4, weights=str(run))
    loaded = from_pretrained(run).backbone.state_dict()["conv1.weight"]
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], loaded)
    with pytest.raises(RunError, match="exists and is not empty"):
        copy_run("me/tiny-vsn", tmp_path / "mine")


def test_a_user_with_a_token_in_the_environment(server: LoopbackHub, finished_run: Path, tmp_path: Path):
    """The command in a process of its own: only variables tell it where the hub is and who asks."""
    environment = os.environ | {
        "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "vsn", "hub", "push", str(finished_run), "me/tiny-vsn", "--license", "mit"]
    url = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    repository = server.repositories["me/tiny-vsn"]
    assert url == f"{server.url}/me/tiny-vsn/commit/{repository.refs['main']}"
    assert b"The weights: mit." in repository.files("main")["README.md"]
    cli.main(["hub", "pull", "me/tiny-vsn", "--to", str(tmp_path / "mine"), "--revision", "main"])
    assert contents(tmp_path / "mine") | {".gitattributes": b""} == repository.files("main")
