"""Figures as people read them."""

import sys

from rich.console import Console
from rich.table import Table


def cell(figures: dict, what: str) -> str:
    if what not in figures:
        return "–"
    if what == "rankme":
        return f"{figures[what]:.1f}"
    if f"{what}_interval" not in figures:
        return f"{figures[what]:.2f}" if what in ("nmi", "ari") else f"{100 * figures[what]:.1f} %"
    low, high = figures[f"{what}_interval"]
    return f"{100 * figures[what]:.1f} % ({100 * low:.0f}–{100 * high:.0f})"


def with_interval(figures: dict | None, digits: int = 3) -> str:
    """A figure as `engine.bootstrap.as_figures` gives it: value, deviation of several seeds, and interval, where they exist."""
    if figures is None or figures["value"] is None:
        return "–"
    text = f"{figures['value']:.{digits}f}"
    if figures["deviation"] is not None:
        text += f" ± {figures['deviation']:.{digits}f}"
    if figures["interval"] is not None:
        text += " ({:.{digits}f}–{:.{digits}f})".format(*figures["interval"], digits=digits)
    return text


def print_table(table: Table) -> None:
    """Shows a table at the terminal's width, or 140 columns where there is none."""
    Console(width=None if sys.stdout.isatty() else 140).print(table)
