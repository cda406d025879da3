"""Reading a page back: what it says, what it links to, and that it is well formed."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Reads a page, holding every tag to be closed in order and every id to be there once."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.unnamed_images = 0
        self.feed(source)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs), (tag, attrs)
        assert not [name for name in values if name.startswith("on")], (tag, attrs)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.tags.append(tag)
        self.unnamed_images += tag == "img" and "alt" not in values
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data.strip())
            if self.open[-1] in ("h1", "h2", "h3", "h4"):
                self.headings.append((self.open[-1], data))
