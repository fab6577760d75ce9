"""What made the predictions in a folder, noted beside them, so that those of two networks never lie there as those of one."""

import json
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError
from .results import write_json

NOTE, TABLE = "predictions.json", "predictions.csv"
MAP_ENDINGS = (".nii.gz", ".npz")
# what changes the outcome: how the note calls it, and how people do
COMPARED = {"sha256": "other weights", "data": "another folder", "channel": "another channel", "precision": "another precision"}


def take_folder(folder: Path, about: dict, targets: Sequence[Path], overwrite: bool) -> None:
    """Notes what makes the predictions in `folder`: `about`, the path of the `weights` and what is compared.

    targets: files that are going to be there. Raises `UserError` where there are predictions that something else has made, or
    nobody knows what; with `overwrite` the targets among them are removed, and refused are those that would stay.
    """
    then = _noted(folder)
    if then is None or any(then.get(name) != about[name] for name in COMPARED):
        there = _predictions(folder, about, targets, known=then is not None)
        if there and not overwrite:
            raise UserError(
                f"{folder} holds predictions {_made_otherwise(then, about)}; choose another --output, or replace them with "
                "--overwrite."
            )
        strangers = sorted(there - set(targets))
        if strangers:
            raise UserError(f"{strangers[0]} would stay beside predictions that are made otherwise; choose another --output.")
        for path in there:
            path.unlink()
    write_json(folder / NOTE, {"format_version": 1, **about})


def refuse_inside(output: Path, data: Path) -> None:
    """Raises `UserError` where label maps would lie among the images that they are of."""
    if output.resolve().is_relative_to(data.resolve()):
        raise UserError(
            f"--output {output} is inside --data_path {data}, where label maps would be taken for images; "
            "choose another --output."
        )


def _noted(folder: Path) -> dict | None:
    """What the note says; None without one that can be read."""
    try:
        noted = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return noted if isinstance(noted, dict) else None


def _predictions(folder: Path, about: dict, targets: Sequence[Path], known: bool) -> set[Path]:
    """The files in a folder that are predictions. known: whether a note says that there are some.

    Where nothing says so, label maps beside a table that is written are not looked at: they may be anything.
    """
    there = {path for path in targets if path.exists()}
    if known or folder / TABLE not in targets:
        data = Path(about["data"])
        there |= {path for path in folder.rglob("*") if path.name.endswith(MAP_ENDINGS) and data not in path.resolve().parents}
        there |= {path for path in [folder / TABLE] if path.exists()}
    return there


def _made_otherwise(then: dict | None, about: dict) -> str:
    if then is None:
        return f"of which no {NOTE} says what made them"
    return "of " + " and ".join(
        f"{words} ({then.get('weights' if name == 'sha256' else name)})"
        for name, words in COMPARED.items()
        if then.get(name) != about[name]
    )
