"""The web page of an exported model: its folder, and the page in a real browser."""

import functools
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

import vsn
from tests.helpers.external import chromium
from tests.helpers.looks import objections, picture
from vsn.config import ClipSpec, DataConfig, EvalConfig, ExportConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.sampling import stack_indices
from vsn.data.video import at_constant_rate, write_video
from vsn.data.video.reader import VideoReader
from vsn.data.views import PROTOCOLS, clip_indices
from vsn.export.export import ExportReport, export_run
from vsn.export.web import LIBRARIES, PACKAGES, check_page, find_examples, page_libraries, write_page
from vsn.inference.exported import video_logits
from vsn.inference.exported_metadata import ExportError
from vsn.inference.inputs import views_of_video
from vsn.runs.run import open_run
from vsn.scores.metrics import log_softmax
from vsn.stream.file_windows import read_windows
from vsn.stream.timeline import scored_timeline

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

STATIC = Path(__file__).parents[2] / "src" / "vsn" / "static" / "web"


# --- the folder ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder node_modules whose packages hold no code."""

    folder = tmp_path_factory.mktemp("stubs")
    for package, members in LIBRARIES.items():
        for member in members:
            (folder / package / member).parent.mkdir(parents=True, exist_ok=True)
            (folder / package / member).write_text(f"// {member}\n")
    return folder


def test_the_folder_holds_all_that_the_page_loads(
    exported_run: ExportReport, finished_run: Path, stubs: Path, tmp_path: Path
):
    examples = find_examples(open_run(finished_run).recipe, 2)
    with page_libraries(stubs) as libraries:
        write_page(tmp_path / "page", exported_run.metadata, libraries, window_seconds=1.5, examples=examples)
    written = [path for path in (tmp_path / "page").rglob("*") if path.is_file()]
    files = {path.relative_to(tmp_path / "page").as_posix() for path in written}
    texts = [path.read_text() for path in (tmp_path / "page").iterdir() if path.suffix in (".html", ".js")]
    loaded = {
        name
        for text in texts
        for name in re.findall(r'(?:href|src|from|Worker\()[= ]?["`](?:\./)?([\w./]+\.\w+)', text)
    }
    assert {"page.js", "parts.js", "worker.js", "pixels.js", "serve.css", "lib/mediabunny.js"} <= loaded
    assert loaded <= files
    described = json.loads((tmp_path / "page" / "model.json").read_text())
    assert described["window_seconds"] == 1.5
    assert described["takes_windows"] is True
    assert [Path(example["file"]).suffix for example in described["examples"]] == [".mp4", ".mp4"]
    assert {example["file"] for example in described["examples"]} <= files
    assert {example["label"] for example in described["examples"]} <= set(exported_run.metadata.classes)


def test_without_npm_and_without_packages_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"npm install onnxruntime-web@.* --node-modules"), page_libraries():
        pass
    with pytest.raises(ExportError, match=r"onnxruntime-web.* does not exist"), page_libraries(tmp_path):
        pass


def test_a_download_that_fails_leaves_no_page(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error network no route' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    with pytest.raises(ExportError, match=r"network no route.*--node-modules"):
        export_run(finished_run, ExportConfig(to="web"), out=tmp_path / "page", progress=False)
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (Recipe(model=ModelConfig(name="vsn_resnet14_tiny", modality="flow")), "flow"),
        (Recipe(eval=EvalConfig(order="reversed")), "reversed"),
    ],
)
def test_a_model_whose_clips_the_page_cannot_make_is_refused(recipe: Recipe, named: str):
    with pytest.raises(ExportError, match=named):
        check_page(recipe)


@pytest.mark.parametrize("settings", [{"node_modules": "x"}, {"examples": 3}])
def test_settings_of_the_page_are_refused_for_a_file(settings: dict):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ExportConfig(to="onnx", **settings)


# --- its modules in a browser -----------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Isolated(Quiet):
    """Sends the headers with which browsers let a page share memory between threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


class Served:
    """A folder, served by a plain web server on loopback: `with Served(folder) as url`."""

    def __init__(self, folder: Path, handler: type[Quiet] = Quiet) -> None:
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as running:
        yield running


@pytest.fixture(scope="module")
def modules(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page that can import the modules of the page, and its folder."""
    folder = tmp_path_factory.mktemp("modules")
    for path in STATIC.glob("*.js"):
        shutil.copy(path, folder)
    (folder / "empty.html").write_text("<!doctype html><title>empty</title>")
    with Served(folder) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}empty.html")
        yield page, folder


SAMPLING = [
    ("segment", "center"),
    ("dense", "fcn"),
    ("rate", "3crop"),
    ("segment", "3crop-2clip"),
    ("rate", "dense-10clip-3crop"),
]


def test_clips_have_the_frames_of_evaluation(modules: Any):
    page, _ = modules
    cases, expected = [], []
    for sampling, protocol in SAMPLING:
        for num_consecutive in (1, 3):
            for num_video_frames in (1, 2, 3, 7, 63, 64, 65, 100, 1009):
                for rate in (0.0, 29.97):
                    spec = ClipSpec(sampling=sampling, frames_per_second=12.5)
                    starts = clip_indices(
                        protocol, spec, num_video_frames, 8, video_rate=rate, num_consecutive=num_consecutive
                    )
                    expected.append(stack_indices(starts, num_video_frames, num_consecutive).tolist())
                    plan = {
                        "clips": PROTOCOLS[protocol].clips, "sampling": sampling, "clip_rate": 12.5, "num_frames": 8,
                        "num_consecutive": num_consecutive,
                    }  # fmt: skip
                    cases.append([plan, num_video_frames, rate])
    found = page.evaluate(
        "async (cases) => { const m = await import('/sampling.js'); return cases.map((c) => m.clipFrames(...c)); }",
        cases,
    )
    for case, one, other in zip(cases, found, expected, strict=True):
        assert one == other, case


class Times(VideoReader):
    """A video of which only the times are known."""

    def __init__(self, times: np.ndarray, last: float, rate: float) -> None:
        super().__init__("times", num_frames=len(times), frames_per_second=rate)
        self._times, self._last = times, last

    @property
    def times(self) -> np.ndarray:
        return self._times

    @property
    def last_seconds(self) -> float:
        return self._last

    def frames_at(self, indices: Any) -> np.ndarray:
        raise NotImplementedError


def test_unevenly_spaced_frames_are_shown_at_the_rate_of_evaluation(modules: Any):
    page, _ = modules
    generator = np.random.default_rng(0)
    cases, expected = [], []
    for number in range(60):
        count = int(generator.integers(2, 40))
        steps = generator.choice([0.04, 0.04, 0.04, 0.08, 0.2, 3.0] if number % 3 else [0.04], count)
        if number % 7 == 0:
            steps[count // 2] = 400.0  # an error of the clock
        times = np.round(np.concatenate([[0.0], np.cumsum(steps)]), 3)
        last, rate = float(generator.choice([0.04, 1.5])), float(generator.choice([0.0, 25.0, 30.0]))
        video = at_constant_rate(Times(times, last, rate))
        shown = list(range(video.num_frames))
        stored = shown if isinstance(video, Times) else video.stored_indices(shown).tolist()
        expected.append([video.num_frames, video.frames_per_second, stored])
        cases.append({"times": times.tolist(), "lastSeconds": last, "rate": rate})
    found = page.evaluate(
        """async (cases) => {
          const m = await import('/sampling.js');
          return cases.map((video) => {
            const { numFrames, rate, stored } = m.atConstantRate(video);
            return [numFrames, rate, Array.from({length: numFrames}, (_, i) => stored(i))];
          });
        }""",
        cases,
    )
    assert sum(len(stored) != len(case["times"]) for case, (*_, stored) in zip(cases, expected, strict=True)) > 20
    for case, one, other in zip(cases, found, expected, strict=True):
        assert one[0] == other[0], case
        assert one[1] == pytest.approx(other[1]), case
        assert one[2] == other[2], case


def noise(pixel_format: str, height: int, width: int, generator: np.random.Generator) -> VideoFrame:
    frame = VideoFrame(width, height, pixel_format)
    for plane in frame.planes:
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        coarse = generator.integers(0, 256, (plane.height // 4 + 1, plane.width // 4 + 1))
        fine = coarse.repeat(4, 0).repeat(4, 1)[: plane.height, : plane.width]
        rows[:, : plane.width] = np.clip(fine + generator.integers(-40, 40, (plane.height, plane.width)), 0, 255)
        plane.update(rows.tobytes())
    return frame


FORMATS = {"yuv420p": "I420", "yuv422p": "I422", "yuv444p": "I444"}
MATRICES = {1: "bt709", 5: "smpte170m", 9: "bt2020-ncl"}
SIZES = [
    ((64, 64), (64, 64)), ((90, 160), (36, 64)), ((36, 48), (72, 96)), ((37, 53), (36, 51)), ((64, 65), (64, 65)),
    ((65, 64), (65, 64)), ((48, 64), (49, 65)), ((160, 40), (144, 36)),
]  # fmt: skip


def test_pixels_are_those_of_the_reader(modules: Any):
    page, folder = modules
    generator, reformatter = np.random.default_rng(0), VideoReformatter()
    cases, expected = [], []
    stored = bytearray()
    for pixel_format, name in FORMATS.items():
        for matrix, full_range in ((1, False), (5, True), (9, False)):
            for (height, width), (new_height, new_width) in SIZES:
                frame = noise(pixel_format, height, width, generator)
                frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
                is_resized = (height, width) != (new_height, new_width)
                interpolation = "BILINEAR" if is_resized else "BICUBIC"
                rgb = reformatter.reformat(
                    frame, new_width, new_height, "rgb24", interpolation=interpolation, threads=1
                )
                expected.append(rgb.to_ndarray().transpose(2, 0, 1))
                layout = []
                for plane in frame.planes:
                    layout.append({"offset": len(stored), "stride": plane.width})
                    rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
                    stored += rows[:, : plane.width].tobytes()
                cases.append(
                    [{"layout": layout, "format": name, "height": height, "width": width, "matrix": MATRICES[matrix],
                      "fullRange": full_range, "colorAtLeft": False}, new_height, new_width]
                )  # fmt: skip
    (folder / "planes.bin").write_bytes(bytes(stored))
    (folder / "rgb.bin").write_bytes(b"".join(pixels.tobytes() for pixels in expected))
    differences = page.evaluate(
        """async (cases) => {
          const m = await import('/pixels.js');
          const read = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
          const [data, rgb] = [await read('/planes.bin'), await read('/rgb.bin')];
          let at = 0;
          return cases.map(([frame, ...size]) => {
            const found = m.convert({...frame, data}, ...size);
            return found.reduce((most, value) => Math.max(most, Math.abs(value - rgb[at++])), 0);
          });
        }""",
        cases,
    )
    for case, difference in zip(cases, differences, strict=True):
        assert difference == 0, case


def test_a_picture_is_turned_and_mirrored_as_displayed(modules: Any):
    from vsn.data.video.orientation import Orientation

    page, folder = modules
    picture = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
    # The module that turns pictures imports a library; its class does not use it.
    (folder / "lib").mkdir(exist_ok=True)
    names = "ALL_FORMATS, BlobSource, EncodedPacketSink, Input, VideoSampleSink"
    (folder / "lib" / "mediabunny.js").write_text(f"export const [{names}] = [];")
    for degrees in (0, 90, 180, 270):
        for mirrored in (False, True):
            found = page.evaluate(
                """async ([planes, degrees, mirrored]) => { const m = await import('/video.js');
                const p = new m.Picture(Uint8Array.from(planes), 2, 4).turned(degrees, mirrored);
                return [p.height, p.width, Array.from(p.planes)]; }""",
                [picture.ravel().tolist(), degrees, mirrored],
            )
            expected = Orientation(-degrees % 360, mirrored).apply(picture.transpose(1, 2, 0)).transpose(2, 0, 1)
            assert found == [*expected.shape[1:], expected.ravel().tolist()], (degrees, mirrored)


# --- the page ----------------------------------------------------------------------------------------------


def real_libraries(cache: Path) -> str:
    """A folder node_modules with the packages, from VSN_NODE_MODULES or npm; without either the test is skipped."""
    if named := os.environ.get("VSN_NODE_MODULES"):
        return named
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm to download the libraries of the page")
    specs = [f"{package}@{version}" for package, version in PACKAGES.items()]
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(cache), *specs]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("npm cannot download the libraries of the page")
    return str(cache / "node_modules")


def movie(path: Path, codec: str, *, num_frames: int, size: tuple[int, int], seed: int, **options: str) -> Path:
    """A video of coarse noise in some codec."""
    generator = np.random.default_rng(seed)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for _ in range(num_frames):
            coarse = generator.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
            frame = VideoFrame.from_ndarray(coarse.repeat(8, 0).repeat(8, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path, source: Path, height: int) -> Path:
    """A copy of an MP4 that is displayed turned by a quarter, as phones write it."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 44
    one = 65536
    matrix = (0, one, 0, -one, 0, 0, height * one, 0, 1 << 30)
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


class Site:
    """A page of a tiny model whose scores differ between videos."""

    def __init__(self, run: Path, folder: Path, libraries: str) -> None:
        self.folder = folder
        config = ExportConfig(to="web", node_modules=libraries)
        export_run(run, config, out=folder, window_seconds=1.0, progress=False)
        self.predictor = vsn.Predictor.from_file(folder / "model.onnx")

    def logits(self, video: Path) -> np.ndarray:
        clips = views_of_video(video, self.predictor.recipe, self.predictor.recipe.eval)
        return video_logits(self.predictor.model, clips, average="logits")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    import torch

    from vsn.models import build_model
    from vsn.runs.checkpoint import save_weights
    from vsn.runs.metadata import write_run
    from vsn.runs.run import new_run

    libraries = real_libraries(tmp_path_factory.mktemp("npm"))
    recipe = Recipe(
        model=ModelConfig(name="vsn_resnet14_tiny", num_frames=4),
        clip=ClipSpec(short_side=36, crop_size=32),
        data=DataConfig(root="nowhere"),
        train=TrainConfig(device="cpu"),
        eval=EvalConfig(protocol="3crop"),
    )
    run = new_run(tmp_path_factory.mktemp("runs") / "tiny", recipe, ("swipe left", "swipe right", "wave"))
    write_run(run)
    torch.manual_seed(0)
    model = build_model(replace(recipe.model, num_classes=3))
    with torch.no_grad():
        model.head.weight.normal_(0, 0.3)
    save_weights(run, model)
    return Site(run.path, tmp_path_factory.mktemp("site"), libraries)


@pytest.fixture
def open_page(browser: Any, site: Site) -> Iterator[Any]:
    """Opens the page; at the end nothing was asked of another host, and nothing is wrong on the console."""
    wrong: list[str] = []
    contexts, served = [], []

    def open_page(handler: type[Quiet] = Quiet, **settings: Any) -> Any:
        served.append(Served(site.folder, handler))
        url = served[-1].__enter__()
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda message: wrong.append(f"{message.type}: {message.text}") if message.type != "info" else None,
        )
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith((url, "blob:", "data:")) else wrong.append(request.url),
        )
        page.goto(url)
        page.wait_for_selector("#file:enabled")
        return page

    yield open_page
    for context in contexts:
        context.close()
    for one in served:
        one.__exit__()
    assert wrong == []


ASK = """async (names) => {
  const worker = new Worker("worker.js?device=wasm", {type: "module"});
  const next = (...kinds) => new Promise((resolve) => {
    worker.onmessage = ({data}) => kinds.includes(data.kind) ? resolve(data) : null;
  });
  await next("ready");
  const answers = [];
  for (const [i, name] of names.entries()) {
    const file = new File([await (await fetch(name)).blob()], name);
    worker.postMessage({kind: "file", id: i + 1, file});
    const answer = await next("answer", "problem");
    if (answer.numWindows) answer.timeline = await next("timeline", "problem");
    answers.push(answer);
  }
  return answers;
}"""


def test_logits_and_timelines_of_files_are_those_of_python(open_page: Any, site: Site):
    folder = site.folder
    upright = movie(folder / "h264.mp4", "libx264", num_frames=30, size=(48, 80), seed=0)
    hidden_frames = {"auto-alt-ref": "1", "lag-in-frames": "12"}
    videos = [
        upright,
        turned(folder / "phone.mp4", upright, 48),
        movie(folder / "vp8.webm", "libvpx", num_frames=22, size=(40, 72), seed=1, **hidden_frames),
        movie(folder / "vp9.webm", "libvpx-vp9", num_frames=9, size=(48, 48), seed=2, **{"cpu-used": "8"}),
        movie(folder / "same-size.mkv", "libx264", num_frames=12, size=(40, 64), seed=3),
        movie(folder / "one-frame.mp4", "libx264", num_frames=1, size=(64, 48), seed=4),
    ]  # fmt: skip
    answers = open_page().evaluate(ASK, [path.name for path in videos])
    for path, answer in zip(videos, answers, strict=True):
        assert answer["kind"] == "answer", answer
        np.testing.assert_allclose(answer["logits"], site.logits(path), atol=1e-4, err_msg=path.name)
    logits = np.array([answer["logits"] for answer in answers])
    assert np.ptp(logits, axis=0).min() > 0.01  # videos that all score alike would show nothing

    windows = read_windows(upright, site.predictor.recipe, seconds=1.0, max_windows=24, video_seconds=3.0)
    scores = [video_logits(site.predictor.model, clip, average="logits") for clip in windows.clips]
    from vsn.config import WindowConfig

    timeline = scored_timeline(upright, windows, scores, classes=site.predictor.classes, config=WindowConfig())
    assert answers[0]["numWindows"] == len(windows.numbers)
    found = [segment for segment in answers[0]["timeline"]["segments"] if segment["label"] is not None]
    assert [one["label"] for one in found] == [segment.label for segment in timeline.segments]
    for one, segment in zip(found, timeline.segments, strict=True):
        assert [one["start"], one["end"], one["probability"]] == pytest.approx(
            [segment.start, segment.end, segment.score], abs=1e-4
        )


def test_a_video_is_labeled_and_files_that_are_none_are_refused(open_page: Any, site: Site, tmp_path: Path):
    page = open_page(viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.body.dataset.runtime") == "wasm 1"
    (tmp_path / "notes.mp4").write_text("no video")
    page.set_input_files("#file", tmp_path / "notes.mp4")
    page.wait_for_selector("#problem:not([hidden])")
    assert "notes.mp4" in page.inner_text("#problem")
    path = write_video_of(tmp_path / "clip.mp4", num_frames=20)
    page.set_input_files("#file", path)
    page.wait_for_selector("#result:not([hidden])")
    assert page.is_hidden("#problem")
    logits = site.logits(path).astype(float)
    probabilities = np.exp(log_softmax(logits[None]))[0]
    expected = [[site.predictor.classes[i], f"{100 * probabilities[i]:.1f}%"] for i in np.argsort(-probabilities)]
    shown = page.eval_on_selector_all("#labels .name", "all => all.map(one => [...one.children].map(c => c.innerText))")
    assert shown == expected
    assert page.locator("#frames canvas").count() == 4
    page.wait_for_selector("#timeline button")
    # The intervals lie side by side over the whole width, above an axis.
    places = """all => all.map(one => one.getBoundingClientRect()).map(({left, right}) => [left, right])"""
    band, *intervals = page.eval_on_selector_all("#timeline, #timeline button", places)
    assert intervals[0][0] == pytest.approx(band[0], abs=1)
    assert intervals[-1][1] == pytest.approx(band[1], abs=1)
    assert all(one[1] == pytest.approx(other[0], abs=1) for one, other in itertools.pairwise(intervals))
    assert page.locator("#axis span").all_inner_texts() == ["0:00", "0:01", "0:02"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    picture(page, "web-file")


def test_of_two_videos_in_a_row_the_second_is_labeled(open_page: Any, tmp_path: Path):
    page = open_page()
    long, short = (
        write_video_of(tmp_path / "long.mp4", num_frames=400),
        write_video_of(tmp_path / "short.mp4", num_frames=8),
    )
    page.set_input_files("#file", long)
    page.set_input_files("#file", short)
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#result-title") == "short.mp4"
    page.set_input_files("#file", long)
    page.click("#cancel")
    page.set_input_files("#file", short)
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#result-title") == "short.mp4"


def test_the_camera_is_labeled_until_it_is_stopped(open_page: Any):
    page = open_page(permissions=["camera"], viewport={"width": 390, "height": 800})
    page.click("#live")
    page.wait_for_selector("#live-timeline i:nth-child(3)")
    assert page.locator("#live-labels li").count() == 3
    assert page.get_attribute("#live", "aria-pressed") == "true"
    picture(page, "web-camera")
    page.click("#live")
    assert page.is_hidden("#camera-part")
    assert page.evaluate("document.getElementById('camera').srcObject") is None


def test_a_camera_that_is_refused(open_page: Any):
    page = open_page()
    page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
        }"""
    )
    page.click("#live")
    page.wait_for_selector("#problem:not([hidden])")
    assert "NotAllowedError" in page.inner_text("#problem")
    assert page.is_enabled("#file")


@pytest.mark.needs("axe")
def test_nothing_is_to_object_to_on_the_page(open_page: Any, tmp_path: Path):
    page = open_page(bypass_csp=True)
    page.set_input_files("#file", write_video_of(tmp_path / "clip.mp4", num_frames=20))
    page.wait_for_selector("#timeline button")
    page.click("summary")
    assert objections(page) == []


def test_threads_where_the_server_isolates_the_page(open_page: Any):
    runtime = open_page(Isolated).evaluate("document.body.dataset.runtime")
    assert runtime == f"wasm {min(8, os.cpu_count() or 1)}"


def write_video_of(path: Path, *, num_frames: int) -> Path:
    generator = np.random.default_rng(num_frames)
    coarse = generator.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
    write_video(path, coarse.repeat(8, axis=1).repeat(8, axis=2), frames_per_second=10)
    return path
