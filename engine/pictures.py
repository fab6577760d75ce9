"""Pictures of results, drawn with matplotlib."""

from pathlib import Path

import matplotlib
import numpy as np
from contourpy import contour_generator

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.lines import Line2D

# light and dark, solid and dashed: apart also without colours and for the colour-blind
TRUTH = {"color": "#f0e442", "linestyle": "solid", "linewidth": 1.4}
PREDICTION = {"color": "#d55e00", "linestyle": "dashed", "linewidth": 1.4}


def outlines(path: Path, panels: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> None:
    """One panel for each name: image, truth and prediction (H, W, C), of which the slice with the most foreground is shown.

    truth, prediction: label maps, 0 is the background; each class has its outline.
    """
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.8), squeeze=False, layout="constrained")
    for axis, (name, (image, truth, predicted)) in zip(axes[0], panels.items()):
        shown = fullest_slice(truth, predicted)
        low, high = np.percentile(image, (0.5, 99.5))
        axis.imshow(image[:, :, shown], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        for labels, style in [(truth[:, :, shown], TRUTH), (predicted[:, :, shown], PREDICTION)]:
            for line in _borders(labels):
                axis.plot(*line.T, **style)
        axis.set(title=f"{name}\nslice {shown + 1} of {image.shape[2]}", xticks=[], yticks=[])
    lines = [Line2D([], [], **TRUTH, label="truth"), Line2D([], [], **PREDICTION, label="prediction")]
    # on grey, as on the pictures: the light line would be lost on white
    figure.legend(handles=lines, loc="outside lower center", ncols=2, facecolor="0.35", labelcolor="white", framealpha=1)
    figure.suptitle(title)
    _save(figure, path)


def reliability_diagrams(path: Path, panels: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> None:
    """One panel for each name: how often answers were right against how sure they were; below, how many there are.

    panels: of each bin the mean confidence and the share of right answers, NaN where it is empty, and its number of cases (b,).
    """
    figure, axes = pyplot.subplots(
        2, len(panels), figsize=(4.2 * len(panels), 5), squeeze=False, layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    for (above, below), (name, (confidence, share, many)) in zip(axes.T, panels.items()):
        held = many > 0
        above.plot([0, 1], [0, 1], color="0.6", linestyle="dashed", label="calibrated")
        above.plot(confidence[held], share[held], color="#0072b2", marker="o", label="answers")
        above.set(title=name, ylabel="share right", xlim=(0, 1), ylim=(0, 1.02))
        above.legend(loc="upper left", frameon=False)
        below.bar((np.arange(len(many)) + 0.5) / len(many), many, 0.9 / len(many), color="0.6")
        below.set(xlabel="confidence", ylabel="cases")
    figure.suptitle(title)
    _save(figure, path)


def fullest_slice(truth: np.ndarray, predicted: np.ndarray) -> int:
    """The slice of two label maps (H, W, C) with the most voxels of either, the first of equals; of empty ones the middle."""
    many = ((truth > 0) | (predicted > 0)).sum((0, 1))
    return int(many.argmax()) if many.any() else len(many) // 2


def _borders(labels: np.ndarray) -> list[np.ndarray]:
    """(points, 2) columns and rows: the outline of each class of a label map (H, W), closed also at the border of the picture.

    What two classes share is NaN in the second: dashes that were drawn twice would fill each other's gaps.
    """
    lines, drawn = [], set()
    for number in np.unique(labels[labels > 0]):
        own = contour_generator(z=np.pad(labels == number, 1).astype(float)).lines(0.5)
        points = {tuple(point) for line in own for point in line}
        for line in own:
            fresh = np.array([tuple(point) not in drawn for point in line])
            fresh |= np.roll(fresh, 1) | np.roll(fresh, -1)  # up to where the other begins
            lines.append(np.where(fresh[:, None], line - 1, np.nan))
        drawn |= points
    return lines


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
