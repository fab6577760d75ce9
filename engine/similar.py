"""Which rows of a file of embeddings lie nearest to a query; the file is read once, piece by piece."""

import heapq
from collections.abc import Callable, Iterable

import numpy as np

from .neighbours import unit_rows


def most_similar(
    pieces: Iterable[tuple[list[dict], np.ndarray]], query: np.ndarray, most: int, wanted: Callable[[dict], bool]
) -> list[tuple[float, dict]]:
    """At most `most` (cosine, row), the nearest first, the first of equals first, among the rows that are `wanted`.

    pieces: of `engine.embedding_files.read_pieces`; query (D,).
    """
    unit, count = unit_rows(query[None])[0], 0
    nearest: list[tuple[float, int, dict]] = []
    for rows, embeddings in pieces:
        cosines = (unit_rows(embeddings) @ unit).round(9)
        for place in np.argsort(-cosines, kind="stable"):
            if len(nearest) == most and cosines[place] <= nearest[0][0]:
                break
            if wanted(rows[place]):
                push = heapq.heappushpop if len(nearest) == most else heapq.heappush
                push(nearest, (float(cosines[place]), -(count + int(place)), rows[place]))
        count += len(rows)
    return [(cosine, row) for cosine, _, row in sorted(nearest, key=lambda of: (-of[0], -of[1]))]
