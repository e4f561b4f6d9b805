"""A parser for the text and the elements of a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Parsed(HTMLParser):
    """A page's elements with their attributes, its table rows, the text of its photo cards, and its whole text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.cards: list[str] = []
        self._in: list[str] = []
        self._said: list[str] = []
        self.feed(html)
        self.text = re.sub(r"[ \n]+", " ", " ".join(self._said))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")
        elif tag == "li" and (attributes.get("class") or "").startswith("photo "):
            self.cards.append("")
        self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self._said.append(data)
        if "td" in self._in or "th" in self._in:
            self.rows[-1][-1] += data.strip()
        elif "figure" in self._in and self.cards:
            self.cards[-1] = re.sub(r"[ \n]+", " ", f"{self.cards[-1]} {data}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._in.pop()

    def tags(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def card(self, key: str) -> str:
        return next(card for card in self.cards if key in card)
