"""A report of the data check as people read it."""

import sys
from collections import Counter, defaultdict

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .check import Report
from .contents import printable
from .findings import REMEDY, Finding, Seen

MOST_LISTED = 10  # findings of a kind


def print_report(report: Report) -> None:
    """Shows a table of the collections, the findings by kind, at most ten each, and how fast it went."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table_of(report.seen))
    print_findings(report.findings, console)
    console.print(f"{report.rate} ({report.how}).", highlight=False)


def print_findings(findings: list[Finding], console: Console | None = None) -> None:
    """Shows findings by kind, at most ten each, the rest counted; a line says so when there are none."""
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    by_kind = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    for kind, group in by_kind.items():
        console.print(f"\n[bold red]{kind}[/] ({len(group):,})")
        for finding in group[:MOST_LISTED]:
            console.print(f"  {escape(printable(finding.sentence))}", highlight=False)
        if len(group) > MOST_LISTED:
            console.print(f"  … and {len(group) - MOST_LISTED:,} more.", highlight=False)
        console.print(f"  → {escape(group[0].remedy if len(group) == 1 else REMEDY[kind])}", highlight=False)
    console.print("\nnothing wrong was found." if not findings else f"\n{len(findings):,} findings.", highlight=False)


def table_of(seen: list[Seen]) -> Table:
    """A row for each collection: files, and the least, the median and the largest of what they are like."""
    table = Table()
    for column in ("collection", "files", "rows", "columns", "slices", "spacing (mm)", "types", "intensities (0.5–99.5 %)"):
        table.add_column(column, justify="right" if column == "files" else "left")
    groups = defaultdict(list)
    for one in seen:
        groups[one.item.collection, "volumes" if one.volume else "pictures"].append(one)
    for (collection, kind), group in sorted(groups.items()):
        sound = [one.facts for one in group if not one.facts.fault]
        sizes = [_range([facts.shape[axis] for facts in sound if len(facts.shape) > axis]) for axis in range(3)]
        table.add_row(
            f"{escape(printable(collection)) or '–'} ({kind})", f"{len(group):,}", *sizes, _spacing(sound), *_types(sound)
        )
    return table


def _range(values: list[float]) -> str:
    if not values:
        return "–"
    least, median, most = (
        f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}" for value in np.quantile(values, (0, 0.5, 1))
    )
    return least if least == most else f"{least} – {median} – {most}"


def _spacing(sound: list) -> str:
    known = [facts.spacing for facts in sound if facts.spacing is not None]
    return " × ".join(_range(list(column)) for column in zip(*known)) if known else "–"


def _types(sound: list) -> tuple[str, str]:
    types = ", ".join(f"{name} {count:,}" for name, count in Counter(facts.dtype for facts in sound).most_common())
    contents = [facts.content for facts in sound if facts.content]
    if not contents:
        return types or "–", "–"
    low, high = (_range([getattr(content, name) for content in contents]) for name in ("low", "high"))
    return types, f"{low} to {high}"
