"""Make the pictures of README and docs from the demo: report.png, videos.png, serve.png, web.png, camera.png, timeline.svg.

    vsn demo --quick
    python docs/scripts/screenshots.py vsn-demo-quick

Needs Chromium, npm and the extras dev and plot. Each picture is below 150 kB.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from playwright.sync_api import Playwright, sync_playwright

from vsn.cli import main
from vsn.data.video import open_video, write_video
from vsn.report.illustrate import illustrated_report

DOCS = Path(__file__).parents[1]
NAMES = ("tsn", "tsm", "vsn")
MAX_BYTES = 150_000
RATE = 24.0
WINDOW_SECONDS = 2.5
"""About the length of the demo's videos."""


def take(demo: Path, out: Path) -> None:
    """Write all pictures of a demo's folder into ``out``."""
    runs = [demo / "runs" / name for name in NAMES]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        work = Path(folder)
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 860}, color_scheme="light")
        report = illustrated_report(runs, work / "report.html", root=demo / "videos", stage="res4")
        page.goto(report.as_uri())
        shoot(page, out / "report.png")
        # The class that the weakest run confuses most.
        page.evaluate("document.querySelector('.pairs [data-open]').click()")
        page.wait_for_timeout(500)
        shoot(page, out / "videos.png")
        video, truth = join_clips(demo / "videos" / "test", work / "joined.mp4")
        with served(runs[-1]) as url:
            page.goto(url)
            page.wait_for_selector("#card dd", state="attached")
            page.set_input_files("#file", video)
            page.wait_for_selector("#frames img", timeout=120_000)
            page.wait_for_timeout(1000)
            shoot(page, out / "serve.png")
        browser.close()
        take_page(playwright, runs[-1], video, work, out)
        files = ["--truth", str(truth), "--plot", str(out / "timeline.svg")]
        main(
            [
                "predict",
                str(runs[-1]),
                str(video),
                "--windows",
                "--seconds",
                str(WINDOW_SECONDS),
                "--smooth",
                "0.5",
                *files,
            ]
        )


def take_page(playwright: Playwright, run: Path, video: Path, work: Path, out: Path) -> None:
    """Write the pictures of the page of `vsn export --to web`: with a file, and with a camera that shows the same video."""
    main(["export", str(run), "--to", "web", "--out", str(work / "web")])
    shutil.copy(video, work / "web" / "shown.mp4")
    write_mjpeg(video, work / "camera.mjpeg")
    camera = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={work / 'camera.mjpeg'}",
    ]
    browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", *camera])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(work / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 760, "height": 1080}, color_scheme="light")
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_selector("#file:enabled")
        page.set_input_files("#file", video)
        page.wait_for_timeout(20_000)
        shoot(page, out / "web.png")
        page.get_by_role("button", name="Use the camera").click()
        page.wait_for_timeout(12_000)
        shoot(page, out / "camera.png")
        server.shutdown()
    browser.close()


def write_mjpeg(video: Path, path: Path) -> None:
    """Write a video as Chromium's camera takes it."""
    with open_video(video) as reader, av.open(str(path), "w", format="mjpeg") as container:
        height, width = reader.metadata.height, reader.metadata.width
        stream = container.add_stream("mjpeg", rate=round(RATE), width=width, height=height, pix_fmt="yuvj420p")
        for frame in reader:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def shoot(page: Any, path: Path) -> None:
    """Save what the window shows, with few colors."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for num_colors in (256, 128, 64, 32):
        picture.quantize(num_colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
            return
    raise SystemExit(f"{path} has {path.stat().st_size} bytes; {MAX_BYTES} are allowed. Show less.")


def join_clips(folder: Path, path: Path) -> tuple[Path, Path]:
    """Join one test video of each class, of about `WINDOW_SECONDS`, to a long one, and write what is shown when."""
    frames: list[np.ndarray] = []
    lines = ["start,end,label"]
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        with open_video(min(sorted(one.glob("*.mp4")), key=_misfit)) as video:
            start = len(frames)
            # The clips have several rates.
            shown = np.arange(0, video.seconds, 1 / RATE)
            frames += list(video.frames_at(np.searchsorted(video.times, shown + 1e-6) - 1))
        lines.append(f"{start / RATE},{len(frames) / RATE},{one.name}")
    write_video(path, frames, frames_per_second=RATE)
    truth = path.with_suffix(".csv")
    truth.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, truth


def _misfit(clip: Path) -> float:
    with open_video(clip) as video:
        return abs(video.seconds - WINDOW_SECONDS)


@contextlib.contextmanager
def served(run: Path) -> Iterator[str]:
    """Serve a run on a free port of this machine, and give the page's address."""
    command = [sys.executable, "-u", "-m", "vsn", "serve", str(run), "--port", "0", "--device", "cpu"]
    command += ["--window-seconds", str(WINDOW_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://\S+", line):
                    yield found[0].rstrip(".,/") + "/"
                    break
            else:
                raise SystemExit("vsn serve ended before it printed its address.")
        finally:
            process.terminate()


def chromium() -> str:
    """The path of Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("There is no Chromium on this machine.")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "runs").is_dir():
        raise SystemExit("usage: python docs/scripts/screenshots.py FOLDER (that `vsn demo` wrote)")
    take(Path(sys.argv[1]), DOCS)
