"""The curves of runs: which figures there are, and each as an inline SVG, its first and last value in words below it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .report_page import escape
from .report_words import FAMILIES, LAYERS, number
from .run_record import StageRecord
from .schedule import learning_rates

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 340, 180, 46, 10, 12, 30  # of a chart, in its own units
MOST_POINTS, MARKED, COLOURS = 300, 12, 8
TITLES = {
    "loss": ("loss of {}", "dashed: ln K, the loss of a network that knows nothing"),
    "clusters_used": ("clusters assigned in training, {}", "to any in the batches of an epoch; dashed: K, all there are"),
    "rank": ("RankMe of {}", "in how many directions their {} differ; near 1 is a collapse"),
    "changed": ("changed clusters, {}", "share that is in another cluster than an epoch before"),
}
OTHERS = {
    "loss": ("loss", "what training minimises"),
    "r2_mean": ("R² of masked slices", "1 is perfect, 0 as good as always saying the mean slice"),
    "r2_interpolation": ("R² over interpolation", "1 is perfect, 0 as good as interpolating between the neighbours"),
    "mask": ("loss of masked slices", "mean squared error of their embeddings"),
    "knn_held_out": ("kNN of held-out files", "share whose label is predicted from the nearest of their collection"),
}
SPEED = {
    "lr": ("learning rate", "by step; in a short run as scheduled"),
    "throughput": ("items a second", "pictures, volumes or slices of a step, over all processes"),
    "data_wait": ("waiting for data", "share of the time; high: more --workers, or prepared files"),
}
ZOOMED, SHARES = ("loss", "mask", "r2_"), ("knn_held_out",)  # axes that need no zero; that go up to 1
NOT_DRAWN = {"kind", "step", "epoch", "seconds", "data_wait_seconds"}


class Series(NamedTuple):
    """A figure over epochs (or steps, of `lr`). reference: a level to compare with, by its name."""

    x: list[float]
    y: list[float]
    reference: tuple[str, float] | None = None


class Curve(NamedTuple):
    """A series of a run (track), in the run's colour, by number, and the name of the folder that it is from."""

    track: str
    colour: int
    folder: str
    series: Series


def series_of(record: StageRecord) -> dict[str, Series]:
    """Every figure of a stage that is drawn, by its name, in the order in which they are."""
    lines = record.epochs
    known = {name for line in lines for name, value in line.items() if isinstance(value, (int, float))} - NOT_DRAWN
    found: dict[str, Series] = {}
    families = [family for family in FAMILIES if f"{family}_ln_k" in known]
    for family in families:
        ln_k = next(line[f"{family}_ln_k"] for line in lines if line.get(f"{family}_ln_k") is not None)
        references = {"loss": ("ln K", ln_k), "clusters_used": ("K", round(math.exp(ln_k)))}
        for part in TITLES:
            if f"{family}_{part}" in known:
                found[f"{family}_{part}"] = _over_epochs(lines, f"{family}_{part}", references.get(part))
    own = [name for name in OTHERS if name in known and not (name == "loss" and families)]
    if not record.stage:  # downstream: what it logged, all of it
        own += sorted(known - set(own))
    found |= {name: _over_epochs(lines, name) for name in own}
    return found | _speed(record)


def title_of(name: str) -> tuple[str, str]:
    """What a figure is called, and what it means."""
    for family in FAMILIES:
        part = name.removeprefix(f"{family}_")
        if part != name and part in TITLES:
            title, hint = TITLES[part]
            return title.format(family), hint.format(LAYERS[family])
    return (OTHERS | SPEED).get(name, (name.replace("_", " "), ""))


def is_drawn(curves: Sequence[Curve]) -> bool:
    """Whether there is a curve to be looked at; one or two points, or one level, are said in a line."""
    return any(len(of.series.y) > 2 and len(set(of.series.y)) > 1 for of in curves)


def in_a_line(name: str, curves: Sequence[Curve], several: bool = False) -> str:
    """A figure that is not drawn: what it is called, and its first and last value."""
    title = _capital(title_of(name)[0])
    many = max(len(of.series.y) for of in curves)
    unchanged = f", unchanged in {many} {_axis(name)}s" if many > 2 else ""
    return f"<p>{escape(title)}: {'; '.join(_values(name, curves, several))}{unchanged}</p>"


def card(name: str, curves: Sequence[Curve], several: bool = False) -> str:
    """A chart with its title and, of each curve, the first and the last value. several: whether it is told whose they are."""
    title, hint = title_of(name)
    zoomed = name.startswith(ZOOMED) or name.endswith("_loss")
    spans = [] if zoomed else [0.0, 1.0] if name in SHARES else [0.0]
    lines, colours = [of.series for of in curves], [of.colour for of in curves]
    drawing = line_chart(title, lines, _axis(name), spans, colours)
    head = f"<figcaption><b>{escape(_capital(title))}</b><small>{escape(hint)}</small></figcaption>"
    below = "".join(f"<p>{row}</p>" for row in _values(name, curves, several))
    return f'<figure class="card">{head}{drawing}{below}</figure>'


def line_chart(
    label: str, lines: Sequence[Series], x_name: str, spans: Sequence[float] = (), colours: Sequence[int] = ()
) -> str:
    """An SVG of lines over one another, with axes and a dashed line for each reference.

    spans: values that the axis must have room for, too. colours: of the lines, by number, the first ones if none are given.
    """
    references = {of.reference for of in lines if of.reference}
    xs, ys = [x for of in lines for x in of.x], [y for of in lines for y in of.y]
    ys += [*(value for _, value in references), *spans]
    low, high = min(ys), max(ys)
    ticks = _ticks(low, high, whole=all(float(y).is_integer() for y in ys))
    low, high = min(ticks[0], low), max(ticks[-1], high)
    first, last = min(xs), max(xs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return LEFT + across * (WIDE - LEFT - RIGHT), TOP + (high - y) / (high - low) * (HIGH - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)} by {x_name}">']
    for tick in ticks:
        y = at(first, tick)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDE - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 5}" y="{y + 4:.1f}">{_tick(tick, ticks[1] - ticks[0])}</text>')
    below = [("middle", (LEFT + WIDE - RIGHT) / 2, x_name if last > first else f"{x_name} {number(last)}")]
    below += [("begin", LEFT, number(first)), ("end", WIDE - RIGHT, number(last))] if last > first else []
    for side, x, text in below:
        parts.append(f'<text class="{side}" x="{x}" y="{HIGH - BOTTOM + 16}">{text}</text>')
    for name, value in sorted(references):
        y = at(first, value)[1]
        parts.append(f'<path class="reference" d="M{LEFT} {y:.1f}H{WIDE - RIGHT}"/>')
        parts.append(
            f'<text class="end" x="{WIDE - RIGHT}" y="{y - 4 if y > TOP + 12 else y + 12:.1f}">{name} = {number(value)}</text>'
        )
    for colour, of in zip(colours or range(len(lines)), lines):
        points = [at(x, y) for x, y in _thinned(list(zip(of.x, of.y)))]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line c{colour % COLOURS}" points="{drawn}"/>')
        if len(points) <= MARKED:
            parts += [f'<circle class="dot c{colour % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points]
    return "".join([*parts, "</svg>"])


def _axis(name: str) -> str:
    return "step" if name == "lr" else "epoch"


def _capital(title: str) -> str:
    return title if title.startswith("kNN") else title[0].upper() + title[1:]


def _values(name: str, curves: Sequence[Curve], several: bool) -> list[str]:
    """Of each curve the first and the last value. several: whether it is told whose they are."""
    rows = []
    for of in curves:
        whose = f'<i class="swatch c{of.colour % COLOURS}"></i>{escape(of.track)}: ' if several else ""
        ends = {"first": of.series.y[0], "last": of.series.y[-1]} if len(of.series.y) > 1 else {"last": of.series.y[0]}
        values = " → ".join(_data(of.folder, name, at, value) for at, value in ends.items())
        rows.append(f"{whose}{values}{_reference(of.series)}")
    return rows


def _over_epochs(lines: Sequence[dict], name: str, reference: tuple[str, float] | None = None) -> Series:
    known = [(line["epoch"] + 1, line[name]) for line in lines if line.get(name) is not None]
    return Series([x for x, _ in known], [y for _, y in known], reference)


def _speed(record: StageRecord) -> dict[str, Series]:
    found = {}
    rates = [(line["step"], line["lr"]) for line in record.steps if line.get("lr") is not None]
    rates = rates if len(rates) > 1 else _scheduled(record)
    if len(rates) > 1:
        found["lr"] = Series(*map(list, zip(*rates)))
    timed = [line for line in record.epochs if line.get("seconds")]
    if timed:
        x = [line["epoch"] + 1 for line in timed]
        items = record.steps_per_epoch * record.batch()
        found["throughput"] = Series(x, [items / line["seconds"] for line in timed])
        if all("data_wait_seconds" in line for line in timed):
            found["data_wait"] = Series(x, [line["data_wait_seconds"] / line["seconds"] for line in timed])
    return found


def _scheduled(record: StageRecord) -> list[tuple[int, float]]:
    """Steps and their learning rates by the constants, of a run so short that it logged none."""
    names = ("warmup_epochs", "base_lr", "final_lr", "start_warmup")
    if not record.epochs or any(name not in record.config for name in names):
        return []
    warmup, *rates = (record.config[name] for name in names)
    scheduled = learning_rates(record.config["epochs"], warmup, record.steps_per_epoch, *rates)
    return list(enumerate(map(float, scheduled[: record.epochs[-1]["step"]]), 1))


def _data(folder: str, name: str, at: str, value: float) -> str:
    """A figure in words, with the figure itself beside it for whoever reads the page by machine."""
    return f'<data value="{value!r}" data-figure="{escape(folder)}/{name}/{at}">{number(value)}</data>'


def _reference(series: Series) -> str:
    return f" <small>({series.reference[0]} = {number(series.reference[1])})</small>" if series.reference else ""


def _thinned(points: list) -> list:
    """At most so many points as can be told apart, the last one among them."""
    stride = -(-len(points) // MOST_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About four round numbers from `low` or below to `high` or above. whole: none between two whole numbers."""
    if high <= low:
        high, low = (high + abs(high) * 0.1 or 1.0), low - abs(low) * 0.1
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * of for of in (1, 2, 5, 10) if power * of >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.floor(low / step + 1e-9)
    ticks = [first * step]
    while ticks[-1] < high - 1e-9 * step:
        ticks.append((first + len(ticks)) * step)
    return [round(tick, 12) for tick in ticks]


def _tick(value: float, step: float) -> str:
    """With as many digits as the step has, so that what is evenly spaced looks so."""
    digits = -math.floor(math.log10(step) + 1e-9) if step > 0 else 0
    return f"{value:.{digits}f}" if 0 < digits < 5 else number(value)
