"""What a person would object to on a page, found by axe-core and by measuring, in both color schemes and at two widths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.external import axe_source

SCHEMES = ("light", "dark")
WIDTHS = (1280, 390)

# Words and numbers that stand on two lines. Long names have to break somewhere.
_BROKEN_WORDS = r"""() => {
  const broken = [], range = document.createRange();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const parent = node.parentElement;
    if (!node.data.trim() || !parent.checkVisibility()) continue;
    if (parent.closest("script, style, noscript, pre, code, svg, .sr")) continue;
    for (const found of node.data.matchAll(/[\d.,]+%?|[^\s\-\u2013\/_.]+/g)) {
      if (found[0].length > 24) continue;
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      const tops = [...range.getClientRects()].filter((box) => box.width > 0).map((box) => box.top);
      if (Math.max(...tops) - Math.min(...tops) > 3) broken.push(found[0]);
    }
  }
  return broken;
}"""

# Images without a size move the page when they are drawn.
_UNSIZED = """() => [...document.images].filter((image) => image.checkVisibility())
  .filter((image) => !(image.hasAttribute("width") && image.hasAttribute("height"))).map((image) => image.alt)"""


def objections(page: Any, *, schemes: Sequence[str] = SCHEMES, widths: Sequence[int] = WIDTHS) -> list[str]:
    """Return one line per objection to a Playwright page as it is now: none for a good page."""
    return [text for scheme, width in _looks(page, schemes, widths) for text in _of_look(page, f"{scheme} {width}")]


def _looks(page: Any, schemes: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, int]]:
    page.evaluate(axe_source())
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            # Colors that fade from one scheme to the other are neither.
            page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))")
            yield scheme, width


def _of_look(page: Any, look: str) -> list[str]:
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    texts = [
        f"{look}: {one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary'][:300]}" for one in found
    ]
    wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    texts += [f"{look}: {wider} pixels wider than the window"] if wider > 0 else []
    texts += [f"{look}: {word!r} is broken into two lines" for word in page.evaluate(_BROKEN_WORDS)]
    return texts + [f"{look}: image {alt!r} has no size" for alt in page.evaluate(_UNSIZED)]


def picture(page: Any, name: str) -> None:
    """Save a screenshot where VSN_SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("VSN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
