"""Answers and metrics tell the truth: of failures, of a full disk, of settings that nobody knows, of still pictures."""

import errno
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny_runs import tiny_recipe
from tests.serve.conftest import LIMITS, Live, LiveServer, make_video, wait_until
from vsn.config import ConfigError
from vsn.data.views import PROTOCOLS
from vsn.models import build_model
from vsn.runs.checkpoint import save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run
from vsn.serve.guards import SECURITY_HEADERS
from vsn.serve.models import open_model
from vsn.serve.problems import Problem
from vsn.serve.service import Service
from vsn.serve.uploads import UploadFolder, shown_bytes


def post(live: Live, content: bytes, query: str = "") -> httpx.Response:
    with live.client() as client:
        return client.post(f"/v1/predict{query}", files={"video": content})


@pytest.fixture
def failing(served_run: Path, tmp_path: Path) -> Iterator[Live]:
    """A service whose model fails."""

    def score(clips: object) -> list[np.ndarray]:
        raise RuntimeError("planted")

    (tmp_path / "uploads").mkdir()
    model = replace(open_model(served_run, device="cpu"), score=score)
    service = Service(model, LIMITS, uploads=tmp_path / "uploads")
    with LiveServer(service) as url:
        wait_until(lambda: not service.why_not_ready(), "it is ready")
        yield Live(url, service, tmp_path / "uploads")


def test_a_failure_is_counted_as_one_and_has_all_headers(failing: Live, clip: Path, caplog: pytest.LogCaptureFixture):
    answer = post(failing, clip.read_bytes())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "planted" not in answer.text
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    # Counted after it was sent.
    wait_until(lambda: failing.metric("vsn_requests_total", path="/v1/predict", status="500") == 1, "it is counted")
    assert failing.metric("vsn_requests_total", path="/v1/predict", status="499") == 0
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_scores_are_not_finite_is_not_served(served_run: Path, value: float):
    model = open_model(served_run, device="cpu")
    model.check()
    assert model.predictor is not None
    # Finite weights, whose outputs overflow.
    with np.errstate(over="ignore"):
        model.predictor.model.head.weight.data.fill_(1e38 if np.isinf(value) else float(value))
    with pytest.raises(ConfigError, match="not finite"):
        model.check()


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("modality", ["rgb", "rgbdiff", "flow"])
def test_every_kind_of_model_is_checked(tmp_path: Path, protocol: str, modality: str):
    recipe = tiny_recipe(Path("nowhere"), model="tsn_resnet14_tiny")
    recipe = replace(recipe, model=replace(recipe.model, modality=modality, flow_length=2))
    run = new_run(tmp_path / "run", replace(recipe, eval=replace(recipe.eval, protocol=protocol)), ("a", "b", "c"))
    write_run(run)
    save_weights(run, build_model(run.recipe.model))
    open_model(run.path, device="cpu").check()


def test_a_folder_of_uploads_that_vanished_is_made_again(live: Live, clip: Path):
    (folder,) = live.uploads.iterdir()
    shutil.rmtree(folder)
    assert post(live, clip.read_bytes()).status_code == 200
    assert [path.stat().st_mode & 0o777 for path in live.uploads.iterdir()] == [0o700]
    # With its lock: another service must not take it for that of a killed one.
    second = UploadFolder(live.uploads)
    assert len(list(live.uploads.iterdir())) == 2
    second.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("at", ["open", "write"])
def test_a_full_disk_is_said(
    live: Live, clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, at: str
):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "planted")

    monkeypatch.setattr("vsn.serve.uploads.tempfile.mkstemp" if at == "open" else "vsn.serve.uploads._Form.write", fail)
    answer = post(live, clip.read_bytes())
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "cannot_store")
    assert "planted" in answer.json()["error"]["received"]
    assert str(live.uploads) not in answer.text
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None
    monkeypatch.undo()
    assert post(live, clip.read_bytes()).status_code == 200


@pytest.mark.parametrize("path", ["/", "/serve.js", "/healthz", "/readyz", "/v1/model", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body(live: Live, path: str):
    with live.client() as client:
        got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    with live.client() as client:
        assert client.head("/v1/predict").status_code == 405


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("?topk=1", ["'topk'", "top_k"]),
        ("?frames=true&timelines=true", ["'timelines'", "timeline"]),
        ("?top_k=1&top_k=2", ["top_k", "2 times"]),
        ("?%00=1", ["top_k, frames, timeline"]),
    ],
)
def test_unknown_settings_are_refused_with_the_nearest(live: Live, clip: Path, query: str, values: list[str]):
    answer = post(live, clip.read_bytes(), query)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "bad_setting")
    assert all(value in error["message"] for value in values)


def test_unknown_settings_of_routes_without_settings(live: Live):
    with live.client() as client:
        assert client.get("/healthz?verbose=1").status_code == 422
        assert client.get("/?utm_source=mail").status_code == 200  # a page: links to it carry anything


def test_a_still_picture_is_said_to_be_one(live: Live, clip: Path, tmp_path: Path):
    Image.new("RGB", (48, 32), (90, 120, 40)).save(tmp_path / "still.png")
    answer = post(live, (tmp_path / "still.png").read_bytes()).json()
    assert answer["video"]["num_frames"] == 1
    assert "one frame" in answer["note"]
    assert post(live, make_video(tmp_path / "two.mp4", num_frames=2).read_bytes()).json()["note"] == ""


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [(1e10, "10 GB"), (1.2e6, "1.2 MB"), (1e6, "1 MB"), (999, "999 bytes"), (1500, "1.5 KB"), (123_456_789, "123 MB"),
     (999_999, "1 MB"), (999_999_999, "1 GB"), (2e15, "2000 TB"), (0, "0 bytes"), (1, "1 byte")],
)  # fmt: skip
def test_sizes_are_as_people_write_them(num_bytes: float, shown: str):
    assert shown_bytes(num_bytes) == shown


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/v1/predict", {}, 405),
        ("POST", "/v1/predict", {}, 415),
        ("POST", "/v1/predict?top_k=x", {}, 422),
        ("GET", "/healthz", {"host": "evil.example"}, 421),
        ("GET", "/healthz", {"host": "[::1"}, 400),
        ("GET", "/healthz", {"origin": "https://evil.example"}, 403),
    ],
)
def test_every_error_is_a_problem_of_rfc_9457(live: Live, method: str, path: str, headers: dict, status: int):
    with live.client() as client:
        answer = client.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["detail"] == body["error"]["message"]
    assert body["title"]
    assert set(body["error"]) == {"code", "message", "received", "limit", "hint"}


def test_openapi_has_an_example_of_each_error(live: Live):
    with live.client() as client:
        api = client.get("/openapi.json").json()
    responses = api["paths"]["/v1/predict"]["post"]["responses"]
    errors = {int(status): response["content"] for status, response in responses.items() if int(status) >= 400}
    assert {408, 413, 415, 422, 503, 504, 507} <= set(errors)
    for status, content in errors.items():
        assert list(content) == ["application/problem+json"]
        assert content["application/problem+json"]["example"]["status"] == status


def test_a_problem_of_storage_is_no_problem_of_the_client():
    assert Problem("cannot_store", "x").status == 507
