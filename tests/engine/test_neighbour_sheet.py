from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.neighbour_sheet import BLACK, GREEN, GREY, RED, draw_neighbours


def item(name, collection, label):
    return SimpleNamespace(path=Path(name), name=name, collection=collection, label=label)


def frames(path, asked=0):
    """The colour of the frames of the first query's row, from left to right."""
    pixels = np.asarray(Image.open(path))
    row = next(y for y in range(len(pixels)) if (pixels[y, 10:130] == BLACK).all())
    line = [tuple(int(v) for v in pixel) for pixel in pixels[row + 1]]
    wide = [(colour, length) for colour, length in runs(line) if length > 100 and colour != (255, 255, 255)]
    return [colour for colour, _ in wide]


def runs(line):
    found = []
    for colour in line:
        if found and found[-1][0] == colour:
            found[-1][1] += 1
        else:
            found.append([colour, 1])
    return found


def thumbnail(path):
    return None if path.name == "broken.png" else np.full((128, 90), 77, np.uint8)


def test_neighbours_are_framed_by_whether_they_are_of_the_querys_kind(tmp_path):
    items = [item("q", "a", "x"), item("s", "a", "x"), item("o", "a", "y"), item("n", "a", ""), item("broken.png", "b", "x")]
    found = [(np.array([1, 2, 3, 4]), np.array([0.9, 0.8, 0.7, 0.6]))]
    draw_neighbours(tmp_path / "sheet.png", "Nearest", items, np.array([0]), found, thumbnail)
    assert frames(tmp_path / "sheet.png") == [BLACK, GREEN, RED, GREY, RED]


@pytest.mark.parametrize("queries, near", [(1, 0), (1, 1), (12, 5), (13, 5)])
def test_only_what_is_shown_is_read(tmp_path, queries, near):
    items, read = [item(f"caf\udce9/{i}$", "", "") for i in range(1000)], set()
    found = [(np.arange(20, 20 + near), np.ones(near))] * queries

    def counting(path):
        read.add(path)
        return thumbnail(path)

    draw_neighbours(tmp_path / "sheet.png", "Nearest", items, np.arange(queries), found, counting)
    assert len(read) == queries + near and max(Image.open(tmp_path / "sheet.png").size) < 2500
