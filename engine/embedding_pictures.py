"""Maps of embeddings: every point is a file, coloured by what is known of it."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .groups import NONE, REST, common_groups

COLOURED = 10  # groups that have a colour of their own, the largest; the others share one
GREYS = {REST: "#8a8a8a", NONE: "#d5d5d5"}


class MapRow(NamedTuple):
    """What the panels of a row show; points (n, 2) by the name of the panel; the group of each point (n,), "" = none."""

    title: str
    panels: dict[str, np.ndarray]
    groups: np.ndarray


def draw_maps(path: Path, title: str, rows: list[MapRow]) -> None:
    """Rows with the same panels. A legend at the end of each says which group has which colour, and how many points."""
    across, down = len(rows[0].panels), len(rows)
    figure = Figure(figsize=(3.2 * across + 2.4, 3.2 * down + 0.7), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for of_row, row in zip(axes, rows):
        groups, colours = _coloured(row.groups)
        for axis, points in zip(of_row, row.panels.values()):
            for group, colour in colours.items():
                axis.scatter(*points[groups == group].T, s=9, linewidths=0, alpha=0.8, color=colour)
            axis.set(xticks=[], yticks=[])
        of_row[0].set_ylabel(row.title, fontsize="large")
        _legend(of_row[-1], groups, colours)
    for axis, name in zip(axes[0], rows[0].panels):
        axis.set_title(name, parse_math=False)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=110)


def _coloured(groups: np.ndarray) -> tuple[np.ndarray, dict[str, object]]:
    """The group of each point, small ones put together, and a colour for each; what has no colour of its own is drawn first."""
    groups, common = common_groups(groups, COLOURED)
    greys = {group: colour for group, colour in GREYS.items() if group in groups}
    return groups, greys | {group: colormaps["tab10"](i) for i, group in enumerate(common)}


def _legend(axis: Axes, groups: np.ndarray, colours: dict[str, object]) -> None:
    many = Counter(groups)
    for group, colour in colours.items():
        shown = group.encode("utf-8", "replace").decode()  # names that are no UTF-8 have letters that no font has
        axis.scatter([], [], s=28, color=colour, label=f"{many[group]} {shown}")
    legend = axis.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small", title="files", alignment="left"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
