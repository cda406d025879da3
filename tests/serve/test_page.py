"""The page at /, in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import KEY, Live, make_video


@pytest.fixture
def open_page(browser: Any, live: Live) -> Iterator[Any]:
    """Opens the page; at the end nothing was asked of another host, and nothing was on the console."""
    wrong: list[str] = []
    contexts = []

    def open_page(**settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: logged(message.text))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        # Early, for it takes a while until Chromium reports file choosers: a test that waits for one has a race.
        page.on("filechooser", lambda chooser: None)

        def logged(text: str) -> None:
            if "status of 422" not in text:  # the browser notes every answer that is a refusal
                wrong.append(f"console: {text}")

        def asked(request: Any) -> None:
            if not request.url.startswith((live.url, "data:", "blob:")):
                wrong.append(f"asked: {request.url}")

        page.on("request", asked)
        page.goto(live.url)
        page.wait_for_selector("#card dd", state="attached")  # the model has been shown
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def picture(page: Any, name: str) -> None:
    """A screenshot where VSN_SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("VSN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def no_wider_than_the_window(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.needs("chromium")
def test_a_video_chosen_by_keyboard_is_labeled(open_page: Any, clip: Path, served_run: Path):
    from vsn import Predictor

    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files(clip)
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "result"
    assert page.inner_text("#result-title") == "clip.mp4"
    prediction = Predictor.from_run(served_run, device="cpu").predict(clip, top_k=2)
    shown = page.eval_on_selector_all("#labels .name", "all => all.map(one => one.innerText.split('\\n'))")
    assert shown == [[n, f"{100 * p:.1f}%"] for n, p in zip(prediction.labels, prediction.probabilities, strict=True)]
    widths = page.eval_on_selector_all("#labels .fill", "all => all.map(one => parseFloat(one.style.width))")
    assert widths == pytest.approx([100 * p for p in prediction.probabilities], abs=0.1)
    assert page.locator("#frames img").count() == 4
    assert "1.2 s, 12 frames of 48\N{MULTIPLICATION SIGN}32" in page.inner_text("#facts")
    assert page.is_hidden("#timeline-part")
    picture(page, "light")
    before = page.get_attribute("#frames img", "src")
    page.focus("#heat")
    page.keyboard.press("Enter")
    page.wait_for_selector("#heat[aria-pressed=true]")
    assert page.get_attribute("#frames img", "src") != before
    assert prediction.labels[0] in page.inner_text("#heat-note")
    picture(page, "heat")
    page.keyboard.press("Enter")
    assert page.get_attribute("#frames img", "src") == before


@pytest.mark.needs("chromium")
def test_dark(open_page: Any, clip: Path):
    page = open_page(color_scheme="dark")
    page.set_input_files("#file", clip)
    page.wait_for_selector("#result:not([hidden])")
    page.click("summary")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    assert "top-1 100.0%" in page.inner_text("#card")
    shown = page.eval_on_selector_all("#card dd", "all => all.map(one => one.innerText)")
    assert {"swipe left", "swipe right", "wave"} <= set(shown)  # one a line: labels may hold commas
    picture(page, "dark")


@pytest.mark.needs("chromium")
def test_a_long_video_on_a_phone(open_page: Any, tmp_path: Path):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert no_wider_than_the_window(page)
    picture(page, "phone-empty")
    name = "a-name-without-any-place-to-break-it-" + 6 * "x" + ".mp4"
    page.set_input_files("#file", make_video(tmp_path / name, num_frames=40, size=(64, 96), seed=3))
    page.wait_for_selector("#result:not([hidden])")
    stretches = page.locator("#timeline button")
    assert stretches.count() >= 1
    text = stretches.nth(0).get_attribute("aria-label")
    assert text.startswith("0:00 to 0:0")
    stretches.nth(0).focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#moment") == text
    assert stretches.nth(0).get_attribute("aria-pressed") == "true"
    page.click("summary")
    assert no_wider_than_the_window(page)
    picture(page, "phone")


@pytest.mark.needs("chromium")
def test_errors_are_shown(open_page: Any, tmp_path: Path):
    page = open_page()
    (tmp_path / "large.mp4").write_bytes(bytes(1_100_000))
    page.set_input_files("#file", tmp_path / "large.mp4")
    assert page.inner_text("#problem").startswith("large.mp4 has 1.1 MB; the limit is 1 MB.")
    long = make_video(tmp_path / "long.avi.mp4", num_frames=130)
    with page.expect_response("**/v1/predict**") as answered:
        page.set_input_files("#file", long)
    assert answered.value.status == 422
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem").startswith("The video lasts 13.0 s. The limit is 12 s.")
    assert page.is_hidden("#result")
    assert page.is_enabled("#file")
    picture(page, "problem")


@pytest.mark.needs("chromium")
def test_a_recording_from_the_camera(open_page: Any):
    page = open_page(permissions=["camera"], viewport={"width": 360, "height": 740})
    page.click("#record")
    page.wait_for_selector("#camera:not([hidden])")
    page.wait_for_timeout(1500)
    page.click("#record")
    page.wait_for_selector("#result:not([hidden]), #problem:not([hidden])")
    assert page.inner_text("#problem") == ""
    assert page.inner_text("#result-title") == "Recording"
    assert page.locator("#frames img").count() == 4
    picture(page, "recording")


@pytest.mark.needs("chromium")
def test_the_duration_of_a_recording_is_that_of_its_time_stamps(open_page: Any):
    """Browsers write WebM without duration and frame rate, and frames at whatever times the camera delivers them."""
    page = open_page(permissions=["camera"])
    page.click("#record")
    page.wait_for_selector("#camera:not([hidden])")
    page.wait_for_selector("#result:not([hidden])")
    seconds = float(page.inner_text("#facts").split(" s,")[0])
    # The browser learns the duration at the end. A busy machine records few frames, and none of the last seconds.
    lasted = page.evaluate("""() => new Promise(resolve => {
        const video = document.getElementById("preview");
        const done = () => { if (Number.isFinite(video.duration)) resolve(video.duration); };
        video.addEventListener("durationchange", done);
        video.currentTime = 1e9;
        done();
    })""")
    assert lasted > 0.5
    # The last frame lasts as long as frames usually do.
    assert lasted - 0.1 < seconds < lasted + 0.5


def test_pressing_twice_opens_the_camera_once(open_page: Any):
    page = open_page(permissions=["camera"])
    page.evaluate("""() => {
        window.tracks = [];
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            const stream = await open(wanted);
            window.tracks.push(...stream.getTracks());
            return stream;
        };
        document.getElementById("record").click();
        document.getElementById("record").click();
    }""")
    page.wait_for_selector("#camera:not([hidden])")
    page.wait_for_timeout(300)
    page.click("#record")
    page.wait_for_selector("#result:not([hidden]), #problem:not([hidden])")
    assert page.evaluate("window.tracks.map(track => track.readyState)") == ["ended"]


@pytest.mark.needs("chromium")
def test_a_file_dropped_too_early_is_not_ignored_silently(open_page: Any, clip: Path):
    page = open_page()
    page.route("**/v1/predict**", lambda route: None)  # never responds
    page.set_input_files("#file", clip)
    page.wait_for_selector("#working:not([hidden])")
    drop = """names => {
        const data = new DataTransfer();
        for (const name of names) data.items.add(new File(["x"], name));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, ["second.mp4"])
    assert "clip.mp4 is being predicted" in page.inner_text("#problem")
    assert "second.mp4" in page.inner_text("#problem")
    page.click("#cancel")
    page.wait_for_selector("#working", state="hidden")
    page.evaluate(drop, ["a.mp4", "b.mp4"])
    assert page.inner_text("#problem").startswith("2 files")


@pytest.mark.needs("chromium")
def test_a_timeline_shows_only_what_was_seen(open_page: Any):
    """Windows of 3 s every 8 s are no unbroken band."""
    page = open_page()
    windows = [
        {"start_seconds": 8 * i, "end_seconds": 8 * i + 3, "label": "wave", "probability": 0.9} for i in range(5)
    ]
    segments = [{"start_seconds": 0, "end_seconds": 21.5, "label": "wave", "probability": 0.9}]
    timeline = {"seconds": 40, "window_seconds": 3, "every_seconds": 8, "windows": windows, "segments": segments}
    drawn = page.evaluate(
        """async (timeline) => {
          const { pieces, showTimeline } = await import("./serve.js");
          showTimeline(timeline);
          return pieces(timeline);
        }""",
        timeline,
    )
    assert [(one["start"], one["end"], one["label"]) for one in drawn] == [
        (0, 3, "wave"), (8, 11, "wave"), (16, 19, "wave"), (24, 27, None), (32, 35, None),
    ]  # fmt: skip
    styles = page.eval_on_selector_all("#timeline button", "all => all.map(one => [one.style.left, one.style.width])")
    assert styles[:2] == [["0%", "7.5%"], ["20%", "7.5%"]]
    assert page.eval_on_selector_all("#axis span", "all => all.map(one => one.innerText)") == [
        "0:00", "0:05", "0:10", "0:15", "0:20", "0:25", "0:30", "0:35", "0:40",
    ]  # fmt: skip
    # The last mark stands at the end, with its time before it.
    outside = """all => all.filter(one => {
        const [mine, whole] = [one.getBoundingClientRect(), one.parentElement.getBoundingClientRect()];
        return mine.left < whole.left - 1 || mine.right > whole.right + 1;
    }).map(one => one.innerText)"""
    page.evaluate('document.querySelector("#result").hidden = false')
    assert page.eval_on_selector_all("#axis span", outside) == []
    overlapping = timeline | {"windows": [w | {"end_seconds": w["start_seconds"] + 9} for w in windows]}
    found = page.evaluate('async (timeline) => (await import("./serve.js")).pieces(timeline)', overlapping)
    assert [(one["start"], one["end"]) for one in found] == [(0, 21.5), (21.5, 41)]


@pytest.mark.needs("chromium")
def test_the_page_of_a_service_with_keys(browser: Any, guarded: Live, clip: Path):
    with browser.new_context() as stranger, pytest.raises(Exception, match="ERR_INVALID_AUTH_CREDENTIALS"):
        stranger.new_page().goto(guarded.url)
    # As typed into the browser's prompt.
    with browser.new_context(http_credentials={"username": "anyone", "password": KEY}) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(guarded.url)
        page.set_input_files("#file", clip)
        page.wait_for_selector("#result:not([hidden])")
        assert page.inner_text("#result-title") == "clip.mp4"
