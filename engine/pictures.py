"""Pictures of results, drawn with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
from contourpy import contour_generator

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

# of classes, by Okabe and Ito: apart on grey, also for the colour-blind; truth and prediction differ without any colour
COLOURS = ("#56b4e9", "#e69f00", "#cc79a7", "#f0e442", "#009e73", "#d55e00")
BACK, TEXT = "#14171b", "#e8eaee"  # as the pictures are, so that they do not lie in a glaring frame
FILL, LINE, HALO = 0.4, 1.6, [Stroke(linewidth=3.2, foreground="black"), Normal()]
DARK = {key: BACK for key in ("figure.facecolor", "axes.facecolor")} | {
    key: TEXT for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
}
TITLE = 46  # letters of a line above a picture


@pyplot.rc_context(DARK)
def outlines(
    path: Path, panels: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str, names: Sequence[str] = ()
) -> None:
    """One panel for each name: image, truth and prediction (H, W, C), of which the slice with the most foreground is shown.

    truth, prediction: label maps, 0 is the background. Each class has a colour, in which truth is filled and prediction a line.
    names: of the classes 1, 2, …
    """
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.4 * len(panels), 4.8), squeeze=False, layout="constrained")
    for axis, (name, (image, truth, predicted)) in zip(axes[0], panels.items()):
        shown = fullest_slice(truth, predicted)
        low, high = np.percentile(image, (0.5, 99.5))
        axis.imshow(image[:, :, shown], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        axis.imshow(_filled(truth[:, :, shown]), interpolation="nearest")
        for number, line in _borders(predicted[:, :, shown]):
            axis.plot(*line.T, color=_colour(number), linewidth=LINE, path_effects=HALO)
        told = "\n".join([*wrap(name, TITLE), f"slice {shown + 1} of {image.shape[2]}"])
        axis.set(xticks=[], yticks=[])
        axis.set_title(told, fontsize=9)
    _legend(figure, names)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


@pyplot.rc_context(DARK)
def reliability_diagrams(path: Path, panels: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> None:
    """One panel for each name: how often answers were right against how sure they were; below, how many there are.

    panels: of each bin the mean confidence and the share of right answers, NaN where it is empty, and its number of cases (b,).
    """
    count = len(panels)
    figure, axes = pyplot.subplots(
        2, count, figsize=(4.2 * count, 5), squeeze=False, layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    for (above, below), (name, (confidence, share, many)) in zip(axes.T, panels.items()):
        held = many > 0
        above.plot([0, 1], [0, 1], color="0.6", linestyle="dashed", label="calibrated")
        above.plot(confidence[held], share[held], color=COLOURS[0], marker="o", label="answers")
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


def _colour(number: int) -> str:
    return COLOURS[(number - 1) % len(COLOURS)]


def _filled(labels: np.ndarray) -> np.ndarray:
    """(H, W, 4): the colour of each pixel's class, which lets the picture through; nothing where there is none."""
    found = np.zeros((*labels.shape, 4))
    for number in np.unique(labels[labels > 0]):
        found[labels == number] = to_rgba(_colour(number), FILL)
    return found


def _borders(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Class, and (points, 2) columns and rows: the outlines of a label map (H, W), closed also at the border of the picture."""
    return [
        (number, line - 1)
        for number in np.unique(labels[labels > 0])
        for line in contour_generator(z=np.pad(labels == number, 1).astype(float)).lines(0.5)
    ]


def _legend(figure, names: Sequence[str]) -> None:
    """How truth and prediction are drawn, and which colour is which class."""
    handles = [Patch(color="0.6", alpha=0.7, label="filled: truth"), Line2D([], [], color="0.8", label="line: prediction")]
    handles += [Patch(color=_colour(number), label=name.replace("_", " ")) for number, name in enumerate(names, 1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9, frameon=False, handlelength=1.6)


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
