"""Pictures of an epoch for TensorBoard: views as the network saw them, and a map of embeddings. Few, small, once an epoch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from .groups import NONE, REST, common_groups

SHOWN, VIEWS, SIDE = 6, 4, 96  # items, views of each, and pixels of a picture at most
GAP = 2  # pixels between pictures
MOST_ROWS = 256  # embeddings of an epoch, its first ones
RESULT = 256  # pixels of a segmented slice at most
TRUE, FOUND = (240, 228, 66), (213, 94, 0)  # light and dark, which are apart without colours, too
MAP, LINE = 320, 14  # pixels of the map; of a line of its legend
COLOURS = [
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (188, 189, 34), (23, 190, 207), (90, 90, 90),
]  # fmt: skip
GREY = (175, 175, 175)
Views = Sequence[torch.Tensor] | Callable[[], Sequence[torch.Tensor]]


class Showing:
    """What was taken of this epoch. Nothing is copied from a device before the epoch ends, but the first step's views."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        self.views: np.ndarray | None = None
        self.rows: list[torch.Tensor] = []
        self.indices: list[np.ndarray] = []

    def add(self, views: Views | None, embeddings: torch.Tensor | None, indices) -> None:
        """views: tensors (B, 1 or 3, h, w), each of the same items; or what makes them, asked once an epoch; or None.

        embeddings (B, D) of the items, or None; indices (B,): their numbers in the data set.
        """
        if self.views is None and views is not None:
            self.views = sheet(views() if callable(views) else views)
        if embeddings is not None and sum(map(len, self.rows)) < MOST_ROWS:
            self.rows.append(embeddings.detach())
            self.indices.append(np.asarray(indices))

    def give(self, logbook, step: int, name_of: Callable[[int], str], for_projector: bool) -> None:
        """Hands the pictures of the epoch to `logbook`, and if asked the embeddings; then a new epoch begins.

        name_of: an item's file, whose folder is its group.
        """
        if self.views is not None:
            logbook.picture("views", self.views, step)
        embeddings, numbers = self.embeddings()
        if len(embeddings) > 1 and np.isfinite(embeddings).all():
            paths = [Path(name_of(number)) for number in numbers]
            logbook.picture("embeddings", map_of(embeddings, [path.parent.name for path in paths]), step)
            if for_projector:
                about = [[path.name, path.parent.name] for path in paths]
                logbook.embeddings(embeddings, about, ["file", "folder"], step)
        self._start()

    def embeddings(self) -> tuple[np.ndarray, list[int]]:
        """(n, D) float32 of the epoch's first items, and their numbers; (0, 0) where none were taken."""
        if not self.rows:
            return np.zeros((0, 0), np.float32), []
        rows = torch.cat(self.rows)[:MOST_ROWS].float().cpu().numpy()
        return rows, np.concatenate(self.indices)[:MOST_ROWS].tolist()


@torch.no_grad()
def sheet(views: Sequence[torch.Tensor]) -> np.ndarray:
    """(h, w) uint8: a row for each of the first items, a column for each of the first views, each over its own range."""
    columns = []
    for view in views[:VIEWS]:
        pixels = view[:SHOWN].detach().float().mean(1)
        step = -(-max(pixels.shape[1:]) // SIDE)
        pixels = pixels[:, ::step, ::step].cpu().numpy()
        low, high = pixels.min((1, 2), keepdims=True), pixels.max((1, 2), keepdims=True)
        columns.append((255 * (pixels - low) / np.maximum(high - low, 1e-12)).astype(np.uint8))
    cell = [GAP + max(column.shape[axis] for column in columns) for axis in (1, 2)]
    cells = [[np.pad(p, [(0, cell[0] - len(p)), (0, cell[1] - len(p[0]))]) for p in column] for column in columns]
    return np.block([list(row) for row in zip(*cells)])


def outlined(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: a slice (H, W) over its own range, with the borders of the classes of two label maps (H, W).

    The prediction is drawn over the truth, so that what is seen of the truth was missed.
    """
    step = -(-max(image.shape) // RESULT)
    image, truth, predicted = (of[::step, ::step] for of in (image, truth, predicted))
    low, high = np.percentile(image, (0.5, 99.5))
    grey = (255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    for labels, colour in ((truth, TRUE), (predicted, FOUND)):
        picture[_border(labels)] = colour
    return picture


def beside_each_other(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(h, w, 3) uint8: pictures of any sizes, side by side."""
    height = max(map(len, pictures))
    return np.hstack([np.pad(one, [(0, height - len(one)), (0, GAP), (0, 0)]) for one in pictures])


def _border(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of a class that have a neighbour of another, or lie at the side of the picture."""
    around = np.pad(labels, 1)
    neighbours = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    return (labels > 0) & np.any([of != labels for of in neighbours], axis=0)


def map_of(embeddings: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """(h, w, 3) uint8: embeddings (n, D) in the plane in which their directions differ most, coloured by their group."""
    named, common = common_groups(np.array(groups), len(COLOURS) + 1)
    colours = dict(zip(common, COLOURS))
    legend = common + [name for name in (REST, NONE) if name in named]
    picture = Image.new("RGB", (MAP, MAP + LINE * len(legend)), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for (x, y), group in zip(_plane(embeddings), named):
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), colours.get(group, GREY))
    for number, name in enumerate(legend):
        draw.text((4, MAP + LINE * number), name.encode("ascii", "replace").decode(), colours.get(name, GREY))
    return np.asarray(picture)


def _plane(embeddings: np.ndarray) -> np.ndarray:
    """(n, 2) pixels."""
    from .projections import principal_components  # scikit-learn takes seconds to be imported, which no run should wait for

    points = principal_components(embeddings)
    points -= (points.min(0) + points.max(0)) / 2
    largest = np.abs(points).max()
    return MAP / 2 + points / (largest if largest > 1e-6 else 1) * (MAP / 2 - 8)
