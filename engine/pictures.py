"""Pictures of results, drawn with matplotlib."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot


def scatter(path: Path, panels: dict[str, tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """One panel for each name: points (n, 2), coloured by their group names (n,)."""
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.4), squeeze=False, layout="constrained")
    groups = sorted({str(group) for _, names in panels.values() for group in names})
    colours = {group: pyplot.get_cmap("tab10")(i % 10) for i, group in enumerate(groups)}
    for axis, (name, (points, names)) in zip(axes[0], panels.items()):
        for group in groups:
            chosen = points[np.asarray(names, str) == group]
            axis.scatter(*chosen.T, s=8, color=colours[group], label=group or "files")
        axis.set(title=name, xticks=[], yticks=[])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(groups), 6), frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
