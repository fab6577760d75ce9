"""A picture of queries, each beside its nearest neighbours, which are framed by whether they are of its kind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

BESIDE = 2  # queries in a line of the sheet
SIDE, FRAME, MARGIN, LINE = 128, 4, 10, 15  # pixels: of a thumbnail, around it, between cells, of a line of text
LINES = 4  # of text below a thumbnail
GREEN, RED = (20, 130, 50), (205, 30, 30)
BLACK, GREY, PALE, WHITE = (0, 0, 0), (140, 140, 140), (232, 232, 232), (255, 255, 255)
LEGEND = (
    "A query (black frame) and, right of it, the files of other subjects that lie nearest to it, in all collections.",
    "Green ✓: same collection and label.  Red ✗: another label, or another collection.  Grey: a label is not known.",
)
Thumbnail = Callable[[Path], np.ndarray | None]


def draw_neighbours(
    path: Path, title: str, items: list, asked: np.ndarray, found: list[tuple[np.ndarray, np.ndarray]], thumbnail: Thumbnail
) -> None:
    """Writes a PNG.

    items: files with path, name, collection and label. asked (q,): the queries' numbers. found: for each, the numbers of its
    neighbours and their cosines. thumbnail: path → (h, w) uint8, at most `SIDE` pixels, or None for a file that cannot be read.
    """
    across = 1 + max(len(near) for near, _ in found)
    wide, high = SIDE + 2 * FRAME + MARGIN, SIDE + 2 * FRAME + LINES * LINE + MARGIN
    block, top = across * wide + 2 * MARGIN, 2 * MARGIN + (1 + len(LEGEND)) * LINE
    size = max(BESIDE * block, 5 * wide), top + -(-len(asked) // BESIDE) * high
    sheet = Image.new("RGB", size, WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(findfont("DejaVu Sans"), 11)
    for number, text in enumerate((title, *LEGEND)):
        draw.text((MARGIN, MARGIN + number * LINE), _printable(text), BLACK, font)
    for place, (query, (near, cosines)) in enumerate(zip(asked, found)):
        x, y = MARGIN + place % BESIDE * block, top + place // BESIDE * high
        _draw_file(sheet, draw, font, (x, y), items[query], thumbnail, "query", BLACK)
        for column, (other, cosine) in enumerate(zip(near, cosines), 1):
            mark, colour = _verdict(items[query], items[other])
            about = f"{mark} cosine {cosine:.4f}".strip()
            _draw_file(sheet, draw, font, (x + column * wide, y), items[other], thumbnail, about, colour)
    sheet.save(path)


def _verdict(query, other) -> tuple[str, tuple[int, int, int]]:
    """A mark and a colour. Labels are told apart within a collection."""
    if query.collection == other.collection and not (query.label and other.label):
        return "", GREY
    return ("✓", GREEN) if (query.collection, query.label) == (other.collection, other.label) else ("✗", RED)


def _draw_file(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, font, corner, item, thumbnail: Thumbnail, about: str, colour
) -> None:
    x, y = corner
    edge = SIDE + 2 * FRAME
    draw.rectangle((x, y, x + edge - 1, y + edge - 1), PALE, colour, FRAME)
    pixels = thumbnail(item.path)
    if pixels is None:
        draw.text((x + edge / 2, y + edge / 2), "cannot be read", GREY, font, anchor="mm")
    else:
        height, width = pixels.shape
        sheet.paste(Image.fromarray(pixels), (x + (edge - width) // 2, y + (edge - height) // 2))
    lines = [about, item.collection, item.label or "no label", Path(item.name).name]
    for number, line in enumerate(line for line in lines if line):
        draw.text((x, y + edge + 1 + number * LINE), _short(draw, font, line), BLACK if number else colour, font)


def _short(draw: ImageDraw.ImageDraw, font, text: str) -> str:
    """The text, its middle left out where it is wider than a thumbnail."""
    text = _printable(text)
    kept, shown = len(text), text
    while draw.textlength(shown, font) > SIDE + 2 * FRAME and kept > 4:
        kept -= 1
        shown = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return shown


def _printable(text: str) -> str:
    """Names that are no UTF-8 have letters that no font has."""
    return text.encode("utf-8", "replace").decode()
