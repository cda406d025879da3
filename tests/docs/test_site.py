"""The documentation becomes a site: strictly, with every link going somewhere, and nothing loaded from elsewhere."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.helpers.docs_pages import ROOT, help_page, script
from tests.helpers.external import chromium
from tests.helpers.looks import objections
from vsn import cli

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
    "use": "href",
}


def entries(nav: list[dict]) -> Iterator[str]:
    for item in nav:
        for value in item.values():
            if isinstance(value, str):
                yield value
            else:
                yield from entries(value)


NAV = list(entries(tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]))


def test_every_page_is_in_the_navigation_once():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {"cli.md"}
    assert len(NAV) == len(set(NAV))
    assert sorted(pages - set(NAV)) == [], "name the page in the nav of zensical.toml"
    assert sorted(set(NAV) - pages) == [], "no such page; take it out of the nav of zensical.toml"


def test_every_command_is_on_the_page_of_commands():
    page = help_page()
    names = set()
    for name, entry in cli.COMMANDS.items():
        names |= {f"{name} {inner}" for inner in entry} if isinstance(entry, Mapping) else {name}
    assert set(re.findall(r"(?m)^## vsn (.*)$", page)) == names
    assert "--model.num-frames" in page
    text = page.split("## vsn train")[0].split("```text")[1]
    assert max(map(len, text.splitlines())) <= 84


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("docs") / "site"
    script("build_site").build(folder)
    return folder


def test_screenshots_are_small_and_shown():
    """Those that docs/scripts/screenshots.py takes."""
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    for name in ("report.png", "videos.png", "serve.png", "timeline.svg"):
        assert (ROOT / "docs" / name).stat().st_size < 150_000
        assert f"]({name})" in pages


class Page(HTMLParser):
    """What a page loads, links to and has as anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.anchors.add(found.get("id", ""))
        if tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(found["href"])
        elif tag in LOADS and LOADS[tag] in found:
            self.loads.append(found[LOADS[tag]])
        elif tag == "a" and "href" in found:
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.name: Page(path) for path in site.glob("*.html")}


def test_every_page_is_built(pages: dict[str, Page]):
    assert {name.replace(".md", ".html") for name in NAV} <= set(pages)


@pytest.mark.needs("zensical")
def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]):
    loads = [one for page in pages.values() for one in page.loads]
    assert len(loads) > 100
    assert [one for one in loads if urlsplit(one).scheme not in ("", "data") or one.startswith("//")] == []
    styles = list(site.rglob("*.css"))
    assert styles
    outside = r"url\(\s*['\"]?(?:https?:)?//|@import"
    assert [path.name for path in styles if re.search(outside, path.read_text(encoding="utf-8"))] == []
    assert [
        path.name for path in site.rglob("*.svg") if re.search(r"(?:href|src)=.https?:", path.read_text("utf-8"))
    ] == []


@pytest.mark.needs("zensical")
def test_every_link_and_picture_is_there(site: Path, pages: dict[str, Page]):
    lost = []
    for name, page in pages.items():
        for target in [*page.links, *page.loads] if name != "404.html" else ():
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            path = unquote(parts.path).removeprefix("./") or name
            anchors = pages[path].anchors if path in pages else {parts.fragment}
            if not (site / path).is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                lost.append(f"{name}: {target}")
    assert lost == []


@pytest.mark.needs("zensical")
def test_the_reference_has_the_docstrings(site: Path):
    text = (site / "reference.html").read_text(encoding="utf-8")
    assert "Exchange channel groups between the T frames of each clip" in text
    assert text.count("doc-heading") > 60
    assert 'class="example"' not in text, "examples are set as code"


@pytest.mark.needs("zensical")
def test_a_link_to_nowhere_ends_the_build(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    building = script("build_site")
    copy = tmp_path / "copy"
    for name in ("docs", "src"):
        (copy / name).mkdir(parents=True)
    (copy / "docs" / "index.md").write_text("# A page\n\n[lost](nothing.md)\n", encoding="utf-8")
    (copy / "zensical.toml").write_text('[project]\nsite_name = "x"\n', encoding="utf-8")
    monkeypatch.setattr(building, "ROOT", copy)
    with pytest.raises(SystemExit, match="The site is not built"):
        building.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="choose another folder"):
        script("build_site").build(tmp_path)
    assert (tmp_path / "mine.txt").is_file()


@pytest.mark.needs("chromium", "zensical")
def test_a_browser_asks_nobody_else(site: Path):
    asked: list[str] = []
    with chromium("--allow-file-access-from-files") as browser:
        page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
        page.on("request", lambda request: asked.append(request.url))
        widths = {}
        for name in ("index", "scaling"):
            page.goto((site / f"{name}.html").as_uri())
            widths[name] = page.evaluate("document.documentElement.scrollWidth")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert {name: width for name, width in widths.items() if width > 390} == {}


@pytest.mark.needs("axe", "chromium", "zensical")
@pytest.mark.parametrize("name", ["index", "404", "own-videos"])
def test_nothing_to_object_to(site: Path, name: str):
    assert objections_to(site, name) == []


@pytest.mark.needs("axe", "chromium", "zensical")
@pytest.mark.slow  # a page of many lines takes a minute
def test_nothing_to_object_to_on_any_page(site: Path, pages: dict[str, Page]):
    wrong = {name: objections_to(site, name, schemes=["dark"]) for name in (Path(page).stem for page in pages)}
    assert {name: texts for name, texts in wrong.items() if texts} == {}


def objections_to(site: Path, name: str, **looks: Sequence[str]) -> list[str]:
    with chromium("--allow-file-access-from-files") as browser:
        page = browser.new_page()
        page.goto((site / f"{name}.html").as_uri())
        # Words of the generator's navigation, and code beside text, break where there is no room for them.
        return [
            text for text in objections(page, **looks) if "is broken into" not in text and "has no size" not in text
        ]


@pytest.mark.needs("chromium", "zensical")
def test_search_works_from_a_file(site: Path):
    """As the site is unpacked from an archive: browsers read no data beside a page that was opened from a file."""
    with chromium() as browser:
        page = browser.new_page()
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("TrajectoryNet")
        page.get_by_text(re.compile(r"^\d+ results?$")).wait_for(timeout=20_000)
