"""Measure the page of `vsn export --to web` in Chromium: time to label a video of one second, by one wasm thread and by all.

    python benchmarks/browser.py OUT.json [--models vsn_resnet26_thin vsn_resnet50] [--node-modules DIR] [--rounds 10]

The networks have random weights; the video is that of cpu_inference.py, decoded by the browser. The same file in ONNX
Runtime on as many threads takes turns with the page. It needs the extra export, playwright and Chromium.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from common import describe_run
from cpu_inference import write_one_second
from vsn.bench.results import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.config import ClipSpec, EvalConfig, ExportConfig, ModelConfig, Recipe
from vsn.export.check import generated_clips
from vsn.export.export import export_model
from vsn.export.web import page_libraries, write_page
from vsn.inference.exported import ExportedModel
from vsn.inference.exported_metadata import import_package
from vsn.models import build_model
from vsn.system.files import write_json

SIZES = {"vsn_resnet26_thin": 64}
"""Crop size, pixels; 224 for other networks."""
START = """async () => {
  const worker = new Worker("worker.js?device=wasm", {type: "module"});
  const next = (...kinds) => new Promise((resolve, reject) => {
    worker.onmessage = ({data}) =>
      kinds.includes(data.kind) ? resolve(data) : data.kind === "problem" ? reject(new Error(data.message)) : null;
  });
  const {runtime} = await next("ready");
  let id = 0;
  window.label = async () => {
    const file = new File([await (await fetch("one-second.mp4")).blob()], "one-second.mp4");
    worker.postMessage({kind: "file", id: ++id, file});
    const {decodeMs, predictMs} = await next("answer");
    return {decodeMs, predictMs};
  };
  return runtime;
}"""


@contextmanager
def serve(folder: Path, *, isolated: bool) -> Iterator[str]:
    """Serve a folder on loopback, with the headers that allow a page threads, or without."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()


def write_site(folder: Path, name: str, node_modules: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=174)
    model = build_model(config).eval()
    size = SIZES.get(name, 224)
    recipe = Recipe(
        model=config, clip=ClipSpec(short_side=size * 8 // 7, crop_size=size), eval=EvalConfig(protocol="center")
    )
    report = export_model(model, recipe, folder / "model.onnx", config=ExportConfig())
    with page_libraries(node_modules) as libraries:
        write_page(folder, report.metadata, libraries)
    write_one_second(folder / "one-second.mp4")


def measure(folder: Path, browser: Any, threads: int, rounds: int) -> dict[str, Any]:
    """Label the video in the page and compute its clip in ONNX Runtime, in turns."""
    model = ExportedModel.from_file(folder / "model.onnx", num_threads=threads)
    size = model.metadata.height
    clip = generated_clips((1, model.metadata.num_frames, 3, size, size))
    with serve(folder, isolated=threads > 1) as url:
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(url)
        runtime = page.evaluate(START)
        if runtime["threads"] != threads:
            sys.exit(f"The page has {runtime['threads']} threads, not {threads}.")
        answers: list[dict[str, float]] = []
        calls = {
            "onnxruntime": lambda: model(clip),
            "page": lambda: answers.append(page.evaluate("window.label()")),
        }
        calls["page"]()
        answers.clear()
        times = time_rounds(
            calls, torch.device("cpu"), rounds=rounds, seconds=600, seed=0, title=folder.name, pause=0.1
        )
        page.close()
    network = [answer["predictMs"] for answer in answers[-rounds:]]
    return {
        "threads": threads,
        "decoding_ms": spread([answer["decodeMs"] for answer in answers[-rounds:]]),
        "network_ms": spread(network),
        "onnxruntime_ms": spread(times["onnxruntime"]),
        "to_onnxruntime": paired_ratio(network, times["onnxruntime"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", nargs="+", default=["vsn_resnet26_thin", "vsn_resnet50"])
    parser.add_argument("--node-modules", default="", help="with the page's packages; default: npm downloads them")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    playwright = import_package("playwright.sync_api", "This benchmark")
    facts = {**describe_run(__file__, [options.output.name, *sys.argv[2:]]), "seed": 0, "rows": []}
    with tempfile.TemporaryDirectory() as folder, playwright.sync_playwright() as driver:
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = driver.chromium.launch(executable_path=program)
        facts["versions"]["chromium"] = browser.version
        for name in options.models:
            write_site(Path(folder) / name, name, options.node_modules)
            for threads in sorted({1, torch.get_num_threads()}):
                row = {"model": name} | measure(Path(folder) / name, browser, threads, options.rounds)
                facts["rows"].append(row)
                print(
                    name,
                    threads,
                    {key: row[key]["median"] for key in row if key.endswith("_ms")},
                    row["to_onnxruntime"],
                )
                write_json(options.output, facts)
        browser.close()


if __name__ == "__main__":
    main()
