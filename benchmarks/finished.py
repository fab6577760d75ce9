"""Runs that a benchmark has finished before and need not repeat, and how their scores are told.

Beside the scores of a run, asked.json says what it was asked for; scores of another run are never taken for those of this one.
"""

import json
from pathlib import Path

import numpy as np

from engine.bootstrap import Estimate, known_mean, mean_of_cases
from engine.errors import UserError
from engine.results import write_json
from engine.segmented_cases import Cases

ASKED = "asked.json"


def finished(folder: Path, asked: dict) -> bool:
    """Whether the scores of the run that was asked this are in `folder`. Raises `UserError` where those of another one are."""
    if not (folder / "results.json").exists():
        return False
    try:
        then = dict(json.loads((folder / ASKED).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"{folder} holds scores, and no {ASKED} that says what was asked for; choose another --output, or remove the "
            "folder to run it again."
        ) from None
    now = json.loads(json.dumps(asked))
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if names:
        changed = "; ".join(f"{name} was {_said(then.get(name))}, is {_said(now.get(name))}" for name in names)
        raise UserError(f"{folder} holds the scores of another run ({changed}); choose another --output.")
    return True


def begin(folder: Path, asked: dict) -> None:
    """Notes in `folder` what the run is asked for that is to write its scores there."""
    try:
        write_json(folder / ASKED, asked)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another --output.") from None


def _said(value) -> str:
    return "not given" if value is None else " ".join(map(str, value if isinstance(value, list) else [value])) or "empty"


def told(found: Estimate, form: str = ".3f") -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def mean_and_seeds(cases: Cases) -> tuple[str, str]:
    """The mean over cases, each the mean over its seeds, with its interval; and the mean of each seed."""
    subjects, values = zip(*cases.values())
    values = np.array(values)
    seeds = " / ".join(f"{mean:.3f}" for mean in known_mean(values, axis=0))
    return told(mean_of_cases(known_mean(values, axis=1), subjects)), seeds
