"""What is written and shown of a classifier: the probabilities of each file, and scores with intervals, also over seeds.

With several seeds a score is the mean of theirs, and each draw of the bootstrap takes the same subjects for all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from .bootstrap import as_figures, estimate, known_mean
from .classification_scores import Score, auc, occurs, scores_of
from .errors import UserError
from .results import write_json, write_rows
from .tables import print_table, with_interval


@dataclass(frozen=True)
class Predictions:
    """What one seed's run says of n files of a split. labels: (n,) numbers of classes; probabilities: (n, K)."""

    seed: int
    split: str
    files: Sequence[str]
    subjects: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray


def write_report(folder: Path, predictions: Sequence[Predictions], names: Sequence[str]) -> dict:
    """Writes `folder/cases.csv` and `folder/results.json`, and returns what the latter holds: the figures of each split.

    names: of the classes 0, 1, … Raises `UserError` when seeds have other files.
    """
    results = {
        split: _summary([of for of in predictions if of.split == split], names)
        for split in sorted({of.split for of in predictions})
    }
    columns = ["file", "subject", "split", "seed", "label", *(f"probability_{name}" for name in names)]
    write_rows(folder / "cases.csv", columns, _rows(predictions, names))
    write_json(folder / "results.json", results)
    return results


def show(results: dict) -> None:
    """The figures of each split as a table, a line a score."""
    for split, of in results.items():
        seeds = f", mean of {len(of['seeds'])} seeds ± their deviation" if len(of["seeds"]) > 1 else ""
        title = f"{split}: {of['files']} files of {of['subjects']} subjects{seeds}"
        table = Table("score", "value (95 % interval over subjects)", title=title, caption=_caption(of))
        for name, figures in of["scores"].items():
            table.add_row(name.replace("_", " "), _or_not_defined(figures))
        if of["auc_of_class"]:
            table.add_section()
        for name, figures in of["auc_of_class"].items():
            table.add_row(f"auc of {name} against the rest", _or_not_defined(figures))
        print_table(table)


def _summary(predictions: list[Predictions], names: Sequence[str]) -> dict:
    """The figures of one split."""
    predictions = [_sorted(of) for of in sorted(predictions, key=lambda of: of.seed)]
    first = predictions[0]
    for of in predictions:
        if of.files != first.files:
            raise UserError(f"seed {of.seed} was scored on other files than seed {first.seed}; score all on the same ones.")
    subjects, seeds = np.array(first.subjects), [of.seed for of in predictions]
    scores = [scores_of(of.labels, of.probabilities) for of in predictions]
    areas = [_areas(of, names) for of in predictions] if len(names) > 2 else [{}]
    return {
        "files": len(first.files),
        "subjects": len(set(first.subjects)),
        "seeds": seeds,
        "classes": {name: int(np.sum(first.labels == number)) for number, name in enumerate(names)},
        "positive": names[1] if len(names) == 2 else None,
        "scores": {name: _over_seeds([of[name] for of in scores], subjects, seeds) for name in scores[0]},
        "auc_of_class": {name: _over_seeds([of[name] for of in areas], subjects, seeds) for name in areas[0]},
        "auc_not_defined_for": [name for number, name in enumerate(names) if not occurs(first.labels, number)],
    }


def _areas(of: Predictions, names: Sequence[str]) -> dict[str, Score]:
    return {name: partial(auc, of.labels == number, of.probabilities[:, number]) for number, name in enumerate(names)}


def _over_seeds(scores: list[Score], subjects: np.ndarray, seeds: list[int]) -> dict:
    """scores: the same one of each seed."""
    found = estimate(lambda weights: known_mean(np.stack([score(weights) for score in scores]), axis=0), subjects)
    each = np.ones((1, len(subjects)))
    return as_figures(found, {seed: float(score(each)[0]) for seed, score in zip(seeds, scores)})


def _sorted(of: Predictions) -> Predictions:
    """By the names of the files, so that those of several seeds lie beside each other."""
    order = np.argsort(np.array(of.files))
    files, subjects = ([str(names[i]) for i in order] for names in (of.files, of.subjects))
    return Predictions(of.seed, of.split, files, subjects, of.labels[order], of.probabilities[order])


def _caption(of: dict) -> str | None:
    """Which class has no AUC, and which classes the mean is over."""
    missing = of["auc_not_defined_for"]
    if not missing:
        return None
    mean = "; the mean is over the others" if of["scores"]["auc"]["value"] is not None else ""
    return f"no file, or every file, is of {' and of '.join(missing)}: its auc is not defined{mean}"


def _or_not_defined(figures: dict) -> str:
    return "not defined" if figures["value"] is None else with_interval(figures)


def _rows(predictions: Sequence[Predictions], names: Sequence[str]) -> Iterator[list]:
    for of in predictions:
        for name, subject, label, row in zip(of.files, of.subjects, of.labels, of.probabilities):
            yield [name, subject, of.split, of.seed, names[label], *(float(value) for value in row)]
