"""Build the documentation as a site of plain files, which loads nothing from anywhere.

    pip install "vsn[docs]"
    python docs/scripts/build_site.py SITE

The pages are docs/*.md as they are; the page of commands is written from the command line's own help and
that of Python names from their docstrings. A link that leads nowhere ends the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import command_page

ROOT = Path(__file__).parents[2]
SHOWN = (".md", ".svg", ".png", ".css")


def lay_out(stage: Path) -> None:
    """What the generator reads: its settings, the sources, every page and picture, and the page of commands."""
    (stage / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "zensical.toml", stage)
    for path in sorted((ROOT / "docs").iterdir()):
        if path.suffix in SHOWN or path.name == "tutorial.py":
            shutil.copy(path, stage / "docs")
    for path in sorted((ROOT / "src").rglob("*.py")):
        copy = stage / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # The plural is what the generator sets as code.
        copy.write_text(re.sub(r"(?m)^( +)Example:$", r"\1Examples:", path.read_text("utf-8")), encoding="utf-8")
    (stage / "docs" / "cli.md").write_text(command_page.page(), encoding="utf-8")


def build(site: Path) -> None:
    """Write the site into a folder that is not there yet, or holds a site."""
    if site.exists() and not (site / "sitemap.xml").is_file():
        raise SystemExit(f"{site} is there and is no site of ours; name another folder, or delete it.")
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        lay_out(stage)
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(command, cwd=stage, env=os.environ | {"NO_COLOR": "1"}, check=False)
        if done.returncode:
            raise SystemExit("The site is not built; what is to be mended stands above.")
        shutil.rmtree(site, ignore_errors=True)
        site.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(stage / "site", site)
    print(f"python -m http.server -d {site} shows it; opened as files its search is off")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python docs/scripts/build_site.py SITE (the folder to write)")
    build(Path(sys.argv[1]).resolve())
