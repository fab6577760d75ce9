"""Pictures with their true and their found boxes, drawn with matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from .detection_scores import Boxes

TRUE, FOUND = "lime", "orangered"
MOST_PICTURES, MOST_FOUND, COLUMNS = 12, 5, 4


def box_sheet(
    path: Path,
    pictures: Sequence[tuple[str, np.ndarray]],
    truth: Sequence[Boxes],
    found: Sequence[Boxes],
    findings: Sequence[str],
) -> None:
    """One panel for each (name, pixels (H, W)): true boxes with their finding, and the best found ones with their score."""
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.4 * columns, 3.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, pixels), true, seen in zip(axes.flat, pictures, truth, found):
        axis.imshow(pixels, cmap="gray", vmin=np.percentile(pixels, 0.5), vmax=np.percentile(pixels, 99.5))
        axis.set_title(name, fontsize=7)
        _draw(axis, true, [findings[label - 1] for label in true.labels], TRUE)
        best = Boxes(*(values[:MOST_FOUND] for values in (seen.boxes, seen.labels, seen.scores)))
        _draw(axis, best, [f"{findings[label - 1]} {score:.2f}" for label, score in zip(best.labels, best.scores)], FOUND)
    figure.suptitle(f"true boxes ({TRUE}); found boxes ({FOUND}), the best {MOST_FOUND} of a picture")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(axis, boxes: Boxes, words: Sequence[str], colour: str) -> None:
    for (x1, y1, x2, y2), word in zip(boxes.boxes, words):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2))
        axis.text(x1, y1 if colour == TRUE else y2, word, color=colour, fontsize=6, va="bottom" if colour == TRUE else "top")
