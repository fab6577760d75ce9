import numpy as np
from PIL import Image

from engine.embedding_pictures import MapRow, draw_maps


def colours_of(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return {tuple(int(v) for v in pixel) for pixel in np.unique(pixels // 32, axis=0)}


def test_a_map_is_drawn_for_any_names_and_any_number_of_groups(tmp_path):
    points = np.random.default_rng(0).normal(size=(80, 2))
    names = ["$a_{$", "_hidden", "caf\udce9", "", *[f"group {i}" for i in range(14)]]
    groups = np.array([names[i % len(names)] for i in range(80)])
    draw_maps(tmp_path / "maps.png", "Maps", [MapRow("by group", {"one $x": points, "two": points}, groups)])
    assert Image.open(tmp_path / "maps.png").size[0] > 600


def test_groups_have_different_colours_and_files_without_one_are_pale(tmp_path):
    points = np.random.default_rng(0).normal(size=(90, 2))
    found = []
    for groups in (np.array(["a", "b"] * 45), np.array([""] * 90)):
        draw_maps(tmp_path / "maps.png", "Maps", [MapRow("by group", {"": points}, groups)])
        found.append(colours_of(tmp_path / "maps.png"))
    has = [[any(r > b + 3 for r, _, b in of), any(b > r + 3 for r, _, b in of)] for of in found]
    assert has == [[True, True], [False, False]]
