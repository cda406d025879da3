"""Build the documentation as a static site that loads nothing from other hosts.

    pip install ".[train]" --group docs
    python docs/scripts/build_site.py SITE

The pages are docs/*.md. The page of commands is generated from the help texts, the reference from docstrings. A broken
link fails the build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import command_page

ROOT = Path(__file__).parents[2]
SHOWN = (".md", ".svg", ".png", ".css", ".js", ".conf", ".service")
WORKER_FROM_FILE = """// From a file a browser starts no worker but from a text that the page holds.
const native = window.Worker, source = %s;
window.Worker = function () { return new native(URL.createObjectURL(new Blob([source]))); };
"""
LOAD_FROM_FILE = """<script>
if (location.protocol === "file:") document.write('<script src="./search-worker.js"><\\/script>')
</script>
"""


def lay_out(stage: Path) -> None:
    """Copy what the generator reads: settings, sources, pages, images, files to copy; add the page of commands."""
    (stage / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "zensical.toml", stage)
    for path in sorted((ROOT / "docs").iterdir()):
        if path.suffix in SHOWN or path.name == "tutorial.py":
            shutil.copy(path, stage / "docs")
    for path in sorted((ROOT / "src").rglob("*.py")):
        copy = stage / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # The generator formats only the plural as code.
        copy.write_text(re.sub(r"(?m)^( +)Example:$", r"\1Examples:", path.read_text("utf-8")), encoding="utf-8")
    (stage / "docs" / "cli.md").write_text(command_page.page(), encoding="utf-8")


def finish(site: Path) -> None:
    """Let the search work from files too, and take out what screen readers and keyboards stumble over."""
    # The page asks for this script where it was opened from a file.
    index = (site / "search.json").read_text(encoding="utf-8")
    (site / "search.js").write_text(f"var __index = {index};\n", encoding="utf-8")
    (worker,) = (site / "assets" / "javascripts" / "workers").glob("search.*.js")
    source = json.dumps(worker.read_text(encoding="utf-8"))
    (site / "search-worker.js").write_text(WORKER_FROM_FILE % source, encoding="utf-8")
    for path in site.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        # Links without a text, one a line of code.
        page = re.sub(r'<a id="__codelineno-[^>]*></a>', "", page)
        page = re.sub(
            r'<input class="md-(toggle|option)"', r'<input tabindex="-1" aria-hidden="true" class="md-\1"', page
        )
        page = re.sub(r'(<input tabindex="-1" aria-hidden="true"[^>]*?) +aria-hidden="true"', r"\1", page)
        page = re.sub(r'(?m)^ *<script src="[^"]*/bundle\.', lambda found: LOAD_FROM_FILE + found[0], page)
        path.write_text(page, encoding="utf-8")


def build(site: Path) -> None:
    """Write the site into a new folder, or one that holds a site."""
    if site.exists() and not (site / "sitemap.xml").is_file():
        raise SystemExit(f"{site} exists and is not a site built by this script; choose another folder, or delete it.")
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        lay_out(stage)
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(command, cwd=stage, env=os.environ | {"NO_COLOR": "1"}, check=False)
        if done.returncode:
            raise SystemExit("The site is not built; fix the errors above.")
        finish(stage / "site")
        shutil.rmtree(site, ignore_errors=True)
        site.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(stage / "site", site)
    print(f"View it with: python -m http.server -d {site}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python docs/scripts/build_site.py SITE (the folder to write)")
    build(Path(sys.argv[1]).resolve())
