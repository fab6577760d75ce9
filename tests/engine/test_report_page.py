import html.parser

import numpy as np
from PIL import Image

from engine.report_page import code, folded, heading, note, page, picture, section, table, thumbnail

NASTY = '<script>alert("&")</script>\' \udce9'


class Reader(html.parser.HTMLParser):
    """The tags of a document, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_text_of_any_kind_stays_text():
    shown = thumbnail(np.zeros((4, 4), np.uint8), NASTY, NASTY)
    parts = [heading(NASTY), note(NASTY), table([NASTY, "b"], [[NASTY, NASTY]], NASTY), folded(NASTY, code(NASTY)), shown]
    read = Reader(page(NASTY, [section("name", NASTY, NASTY, "".join(parts))]))
    assert "script" not in [tag for tag, _ in read.tags]
    assert read.text.count('<script>alert("&")</script>\' ?') == 12
    assert [of["alt"] for tag, of in read.tags if tag == "img"] == ['<script>alert("&")</script>\' ?']


def test_a_page_asks_for_nothing_from_anywhere(tmp_path):
    Image.fromarray(np.zeros((30, 3000), np.uint8)).save(tmp_path / "a.png")
    text = page("title", [picture(tmp_path / "a.png", "caption")])
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text and "@import" not in text
    addresses = [of[name] for _, of in Reader(text).tags for name in ("src", "href") if name in of]
    assert addresses and all(address.startswith("data:") for address in addresses)


def test_a_picture_that_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert "a.png cannot be read as a picture" in picture(tmp_path / "a.png", "caption")


def test_a_large_picture_becomes_small():
    noise = np.random.default_rng(0).integers(0, 255, (2000, 3000), np.uint8)
    assert len(thumbnail(noise, "noise")) < 150_000
