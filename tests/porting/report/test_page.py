"""report.html: one file that fetches nothing and says what was found."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a browser would fetch, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "svg"
        links = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.fetched += [link for link in links if not link.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_file_that_fetches_nothing(proven: Path) -> None:
    text = (proven / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.fetched == [] and page.pictures == 4
    for said in (
        "Equal to TensorFlow",
        "43 typical for the tower",
        "word_embedding",
        "candidates are TensorFlow's",
    ):
        assert said in page.text
    assert "#0102" not in text  # every stand-in has the page's colour
    assert "prefers-color-scheme: dark" in text
