"""One truth from the boxes of several readers: those that mean the same finding are averaged."""

import numpy as np

Box = tuple[float, float, float, float]
SAME = 0.5  # least overlap (intersection over union) of two readers' boxes of one finding


def merged(boxes: list[tuple[str, str, Box]]) -> list[tuple[str, Box]]:
    """(finding, box) of one picture from (reader, finding, box): boxes of one finding that overlap become their mean.

    A box joins the mean that it overlaps most, by more than a half, unless its reader has one there already; else it stands
    for itself. So a finding that a single reader saw is kept. Weighted boxes fusion (Solovyev et al. 2021) with equal weights.
    The order of the rows plays no part.
    """
    groups: list[tuple[str, list[str], list[Box]]] = []
    for reader, finding, box in sorted(boxes):
        open_groups = [group for group in groups if group[0] == finding and reader not in group[1]]
        overlaps = [overlap(box, mean_of(group[2])) for group in open_groups]
        if overlaps and max(overlaps) > SAME:
            _, readers, members = open_groups[int(np.argmax(overlaps))]
            readers.append(reader)
            members.append(box)
        else:
            groups.append((finding, [reader], [box]))
    return [(finding, mean_of(members)) for finding, _, members in groups]


def mean_of(boxes: list[Box]) -> Box:
    return tuple(float(value) for value in np.mean(boxes, axis=0))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2 with an area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (areas - common)
