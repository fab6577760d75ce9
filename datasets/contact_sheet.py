"""One picture of a collection: the middle slices of some of its files, those with findings in red frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .errors import DataError
from .inspection import quick_facts
from .likeness import normalised, numbers_of
from .reading import open_volume, read_image

MOST_SHOWN = 48
COLUMNS = 8
SIDE, MARGIN, LINE = 128, 8, 14  # pixels
RED, WHITE, GREY, DARK = (214, 40, 40), (235, 235, 235), (120, 120, 120), (24, 24, 24)


def thumbnail(path: Path, volume: bool) -> np.ndarray | None:
    """(h, w) uint8, the longer side of `SIDE` pixels: the middle slice over its robust range; None when it cannot be read."""
    if quick_facts(path, volume).fault:
        return None
    try:
        voxels = open_volume(path) if volume else read_image(path)[:, :, None]
    except (DataError, OSError):
        return None
    slice_ = np.asarray(voxels[:, :, voxels.shape[2] // 2], np.float64)
    numbers = numbers_of(slice_)
    low, high = np.percentile(numbers, (0.5, 99.5)) if numbers.size else (0, 1)
    grey = Image.fromarray((255 * normalised(slice_, low, high)).astype(np.uint8))
    share = SIDE / max(grey.size)
    return np.asarray(grey.resize([max(1, round(share * side)) for side in grey.size], Image.Resampling.BILINEAR))


def draw_sheet(path: Path, title: str, drawn: Sequence[tuple[str, np.ndarray | None, bool]]) -> None:
    """Writes a PNG. drawn: name, thumbnail, whether it is framed."""
    columns = min(COLUMNS, max(4, len(drawn)))
    rows = -(-len(drawn) // columns)
    cell = (SIDE + MARGIN, SIDE + LINE + MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, rows * cell[1] + 2 * LINE), DARK)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    draw.text((MARGIN, LINE // 2), title, WHITE, font)
    for place, (name, pixels, framed) in enumerate(drawn):
        x, y = MARGIN + place % columns * cell[0], 2 * LINE + place // columns * cell[1]
        if pixels is None:
            draw.text((x + SIDE / 2, y + SIDE / 2), "cannot be read", GREY, font, anchor="mm")
        else:
            height, width = pixels.shape
            sheet.paste(Image.fromarray(pixels), (x + (SIDE - width) // 2, y + (SIDE - height) // 2))
        if framed:
            draw.rectangle((x - 2, y - 2, x + SIDE + 1, y + SIDE + 1), outline=RED, width=3)
        draw.text(
            (x + SIDE / 2, y + SIDE + LINE / 2 + 1), _short(draw, font, name), RED if framed else WHITE, font, anchor="mm"
        )
    sheet.save(path)


def _short(draw: ImageDraw.ImageDraw, font, name: str) -> str:
    """The name, its middle left out where it is wider than a thumbnail."""
    kept = len(name)
    text = name
    while draw.textlength(text, font) > SIDE and kept > 4:
        kept -= 1
        text = f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"
    return text
