"""Warnings that stay, said ever less often."""

from collections.abc import Sequence


class Repeated:
    """For how many epochs in a row each kind of warning has come; a run that goes on begins to count anew."""

    def __init__(self):
        self.epochs: dict[str, int] = {}

    def to_say(self, warnings: Sequence[str]) -> list[str]:
        """Of an epoch's warnings those that are new, or have come for 2, 4, 8 … epochs in a row."""
        kinds = {kind_of(warning): warning for warning in warnings}
        self.epochs = {kind: self.epochs.get(kind, 0) + 1 for kind in kinds}
        return [_said(warning, self.epochs[kind]) for kind, warning in kinds.items() if self.epochs[kind].bit_count() == 1]


def kind_of(warning: str) -> str:
    """The warning without its numbers, which differ from epoch to epoch."""
    return "".join(letter for letter in warning if not letter.isdigit() and letter not in ".,")


def _said(warning: str, epochs: int) -> str:
    return warning if epochs == 1 else f"{warning} (Said again after {epochs} more epochs, if it stays.)"
