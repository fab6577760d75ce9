"""Figures as people read them."""

import sys

from rich.console import Console
from rich.table import Table


def cell(figures: dict, what: str) -> str:
    if what not in figures:
        return "–"
    if what == "rankme":
        return f"{figures[what]:.1f}"
    low, high = figures[f"{what}_interval"]
    return f"{100 * figures[what]:.1f} % ({100 * low:.0f}–{100 * high:.0f})"


def print_table(table: Table) -> None:
    """Shows a table at the terminal's width, or 140 columns where there is none."""
    Console(width=None if sys.stdout.isatty() else 140).print(table)
