"""Volumes as a network sees them, and what it predicted in the place of masked slices, as pieces of the report."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .reconstructions import hits, reconstruct
from .report_page import paragraph
from .report_pictures import about, masked_rows


class VolumeLook(NamedTuple):
    """A file of n slices and what a network makes of it.

    pixels: (n, h, w) uint8; numbers (n,): of the slices in the file; masked (n,) bool. found: slices, predictions, and
    guesses of interpolation (n, D), volumes (D,), and after stage 3 projections (n, d).
    """

    item: object
    pixels: np.ndarray
    numbers: np.ndarray
    masked: np.ndarray
    found: dict[str, np.ndarray]


def montage(look: VolumeLook) -> np.ndarray:
    """Three slices of a volume beside each other, at a quarter, half and three quarters of its length."""
    return np.hstack([look.pixels[int(share * len(look.pixels))] for share in (0.25, 0.5, 0.75)])


class Slices(NamedTuple):
    """All slices of several volumes, one below the other: whose they are (n,), their places in it (n,), embeddings (n, D)."""

    volume: np.ndarray
    place: np.ndarray
    embeddings: np.ndarray


def masked_slices(looks: list[VolumeLook], subjects: Sequence[str], chosen: Sequence) -> str:
    """Masked slices and what lies nearest to their predictions: in figures, and one of each of the `chosen` items to look at.

    subjects: of the volumes. "" where nothing is masked.
    """
    lengths = [len(look.numbers) for look in looks]
    slices = Slices(
        np.repeat(np.arange(len(looks)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate([look.found["slices"] for look in looks]),
    )
    rows = np.flatnonzero(np.concatenate([look.masked for look in looks]))
    if not len(rows):
        return ""
    whose = np.array(subjects)[slices.volume]
    predicted, guessed = (
        reconstruct(np.concatenate([look.found[name] for look in looks])[rows], slices.embeddings, rows, whose)
        for name in ("predictions", "guesses")
    )
    own, beside = hits(predicted.nearest, rows, slices.volume)
    guess, guess_beside = hits(guessed.nearest, rows, slices.volume)
    told = paragraph(
        f"For {100 * own:.0f} % of {len(rows)} masked slices of {len(looks)} volumes, the slice nearest to the prediction, of "
        f"{len(slices.volume)}, is the masked one itself; for {100 * beside:.0f} % it is that or one beside it. Interpolating "
        f"between the neighbours gives {100 * guess:.0f} % and {100 * guess_beside:.0f} %."
    )
    if own < guess:
        told += paragraph("▲ Predictions find the masked slice less often than interpolating does.")
    examples = []
    for volume in (place for place, look in enumerate(looks) if look.item in chosen):
        of_volume = [place for place, row in enumerate(rows) if slices.volume[row] == volume]
        if of_volume:
            place = min(of_volume, key=lambda place: abs(slices.place[rows[place]] - lengths[volume] / 2))
            near = int(predicted.nearest[place]), int(predicted.nearest_stranger[place])
            examples.append((about(looks[volume].item), _example(looks, slices, int(rows[place]), set(rows), *near)))
    return told + masked_rows(examples)


def _example(looks: list, slices: Slices, row: int, masked: set, nearest: int, stranger: int) -> list[tuple]:
    """A masked slice between its neighbours, then the nearest one to its prediction, and the nearest one of another subject."""
    volume, place = slices.volume[row], slices.place[row]

    def shown(at: int, words: str, kind: str = "") -> tuple[np.ndarray, str, str]:
        look = looks[slices.volume[at]]
        name = f"slice {look.numbers[slices.place[at]] + 1}"
        whose = "" if slices.volume[at] == volume else f"{about(look.item)} · "
        return look.pixels[slices.place[at]], words.format(f"{whose}{name}"), kind

    line = [shown(row - 1, "{}" + ", masked too" * (row - 1 in masked))] if place > 0 else []
    line.append(shown(row, "{}, masked", "query"))
    if place < len(looks[volume].numbers) - 1:
        line.append(shown(row + 1, "{}" + ", masked too" * (row + 1 in masked)))
    itself = nearest == row
    line.append(
        shown(nearest, "nearest to the prediction: " + ("the slice itself ✓" if itself else "{}"), "same" if itself else "")
    )
    return line + ([shown(stranger, "nearest of another subject: {}")] if stranger >= 0 else [])
