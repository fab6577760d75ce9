"""What networks make of their data, as pieces of the report: from pixels, embeddings and scores that somebody else computed.

Files are items with path, name, collection, label and subject, as `datasets.files.Item`; pictures are (h, w) uint8.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .groups import NONE, REST, common_groups
from .neighbours import same_label_shares
from .report_page import breakable, columns, escape, paragraph, thumbnail
from .words import counted

MOST_GROUPS, SIDE, EDGE = 8, 300, 12  # colours; of a map, in its own units
MOST_CLUSTERS, NEAREST = 8, 6
SHAPES = ("m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "m-2.8-2.8h5.6v5.6h-5.6z", "m0-3.6l3.6 6.4h-7.2z", "m0-4l4 4-4 4-4-4z")
Picture = Callable[[int], np.ndarray]


def about(item, number: int | None = None) -> str:
    """A file in a line: collection, label, name without its folders, slice."""
    parts = [item.collection, item.label, item.path.name, "" if number is None else f"slice {number + 1}"]
    return " · ".join(part for part in parts if part)


def seen_rows(seen: Sequence) -> str:
    """A row for each file of a step (`datasets.seen.Seen`): before augmentation, and what the network saw."""
    rows = []
    for of in seen:
        name = about(of.item, of.slice)
        shown = [thumbnail(of.before, f"{name}, before augmentation", "before", boxes=of.boxes)]
        shown += [thumbnail(view, f"{name}, {what}", what) for view, what in zip(of.views, of.captions)]
        rows.append(_row(name, "", shown))
    return columns(rows, "pairs")


def maps(embeddings: np.ndarray, items: Sequence, projections: dict[str, Callable]) -> str:
    """A map for each projection, by collection and, where there are any, by label; each point is a file."""
    figures = []
    labels = {"collection": np.array([item.collection for item in items], object)}
    labels["label"] = np.array([item.label for item in items], object)
    for title, project in projections.items():
        points = project(embeddings)
        for what, groups in labels.items():
            if any(groups):
                figures.append(_map(f"{title}, by {what}", points, groups))
    return columns(figures, "maps")


def cluster_sizes(scores: np.ndarray) -> list[int]:
    """Of scores (n, K) of pictures with prototypes, how many fall to each cluster."""
    return np.bincount(scores.argmax(1), minlength=scores.shape[1]).tolist()


def prototype_rows(
    scores: np.ndarray, items: Sequence, numbers: Sequence[int | None], picture: Picture, what: str, kind: str = ""
) -> str:
    """The clusters that most pictures fall to: how many, which, and those nearest to the prototype, of different subjects.

    scores (n, K) of n pictures with the prototypes; items, numbers: the file of each and the slice of it. picture: row →
    pixels. what: a picture is called; kind: a class of the style.
    """
    assigned, counts = scores.argmax(1), cluster_sizes(scores)
    order = [cluster for cluster in np.argsort(-np.array(counts), kind="stable")[:MOST_CLUSTERS] if counts[cluster]]
    rows = []
    for cluster in order:
        members = np.flatnonzero(assigned == cluster)
        members = members[np.argsort(-scores[members, cluster], kind="stable")]
        shown = []
        for row in _of_different_subjects(members, items):
            name = about(items[row], numbers[row])
            shown.append(thumbnail(picture(row), name, f"{name}; {scores[row, cluster]:.2f}", kind))
        composition = _composition([items[row] for row in members])
        rows.append(_row(f"Cluster {cluster + 1}: {counted(len(members), what)}", composition, shown))
    told = f"{counted(len(scores), what)}, whole and not augmented, fall to {sum(map(bool, counts))} of {len(counts)} clusters"
    told += "".join(_purity(assigned, items, of) for of in ("collection", "label"))
    lead = f"{told}. The {len(order)} largest, each with those nearest to its prototype (cosine):"
    return paragraph(lead) + "".join(rows)


def nearest_in_words(embeddings: np.ndarray, items: Sequence, subjects: np.ndarray) -> str:
    """How often the nearest one of another subject has the same collection, and label, beside any one of another subject."""
    told = []
    for what in ("collection", "label"):
        groups = np.array([getattr(item, what) for item in items])
        known = groups != ""
        if len(set(groups[known])) > 1:
            nearest, chance = same_label_shares(embeddings[known], groups[known], subjects[known])
            told.append(f"the same {what} for {100 * nearest:.0f} % of {known.sum()} (any one has it for {100 * chance:.0f} %)")
    return paragraph(f"The nearest one of another subject has {' and '.join(told)}.") if told else ""


def neighbour_rows(
    items: Sequence, numbers: Sequence[int | None], asked: np.ndarray, found: Sequence, picture: Picture, kind: str = ""
) -> str:
    """Pictures and what lies nearest to them; found: for each of the rows `asked` the rows and cosines of its neighbours."""
    rows = []
    for query, (near, cosines) in zip(asked, found):
        asker = about(items[query], numbers[query])
        shown = [thumbnail(picture(query), asker, "asked for", f"query {kind}")]
        for row, cosine in zip(near, cosines):
            (mark, frame), name = _verdict(items[query], items[row]), about(items[row], numbers[row])
            shown.append(thumbnail(picture(row), name, f"{mark}{name}; {cosine:.3f}", f"{frame} {kind}"))
        rows.append(_row(asker, "", shown))
    return "".join(rows)


def masked_rows(examples: Sequence[tuple[str, Sequence[tuple[np.ndarray, str, str]]]]) -> str:
    """A row for each masked slice. examples: its name; and the pictures beside each other, with caption and class."""
    rows = []
    for name, shown in examples:
        rows.append(_row(name, "", [thumbnail(pixels, f"{name}: {what}", what, kind) for pixels, what, kind in shown]))
    return "".join(rows)


def attention_row(
    name: str, query: int, shares: np.ndarray, outside: np.ndarray, pixels: np.ndarray, numbers: np.ndarray
) -> str:
    """Where one slice's attention goes. shares (layers, N) over slices; outside (layers,): to keys beyond the ends.

    pixels (N, h, w), numbers (N,): of the slices, and in their file.
    """
    mean = shares.mean(0)
    most = [place for place in np.argsort(-mean, kind="stable")[:4] if mean[place] > 0]
    shown = [thumbnail(pixels[query], f"{name}, the slice that asks", f"slice {numbers[query] + 1} asks", "query")]
    for place in most:
        of = f"slice {numbers[place] + 1}"
        shown.append(thumbnail(pixels[place], f"{name}, {of}", f"{of}: {100 * mean[place]:.0f} %"))
    lost = (
        f"; {100 * outside.mean():.0f} % goes to keys beyond the ends, where nothing is read" if outside.mean() > 0.005 else ""
    )
    return _row(name, f"Mean of {len(shares)} layers{lost}.", shown, _bars(name, query, shares, numbers))


def _bars(name: str, query: int, shares: np.ndarray, numbers: Sequence[int]) -> str:
    """A line of bars for each layer, a bar for each slice; the asking slice has another colour."""
    wide, high, left = 700, 34, 68
    step, top = (wide - left) / shares.shape[1], max(float(shares.max()), 1e-6)
    label = escape(f"shares of attention by layer and slice, {name}")
    parts = [f'<svg class="bars" viewBox="0 0 {wide} {high * len(shares) + 18}" role="img" aria-label="{label}">']
    for layer, row in enumerate(shares):
        base = high * (layer + 1)
        parts.append(f'<text x="0" y="{base - 4}">layer {layer + 1}</text><path class="grid" d="M{left} {base}H{wide}"/>')
        for place, share in enumerate(row):
            tall = max(0.5, (high - 6) * float(share) / top)
            own, x, broad = " self" if place == query else "", left + place * step + 1, max(1.0, step - 2)
            box = f'x="{x:.1f}" y="{base - tall:.1f}" width="{broad:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="bar{own}" {box}/>')
    for place in dict.fromkeys((0, query, shares.shape[1] - 1)):
        at = f'x="{left + (place + 0.5) * step:.1f}" y="{high * len(shares) + 14}"'
        parts.append(f'<text class="middle" {at}>{numbers[place] + 1}</text>')
    return "".join([*parts, "</svg>"])


def _map(title: str, points: np.ndarray, groups: np.ndarray) -> str:
    groups, common = common_groups(groups, MOST_GROUPS)
    low, reach = points.min(0), max(float(np.ptp(points, axis=0).max()), 1e-9)
    spare = (reach - np.ptp(points, axis=0)) / 2
    places = EDGE + (points - low + spare) / reach * (SIDE - 2 * EDGE)
    drawn, legend = [], []
    for group in [*(of for of in (NONE, REST) if of in groups), *common]:
        place = common.index(group) if group in common else None
        style, shape = ("rest", SHAPES[0]) if place is None else (f"c{place}", SHAPES[place % len(SHAPES)])
        path = "".join(f"M{x:.0f} {SIDE - y:.0f}{shape}" for x, y in places[groups == group])
        drawn.append(f'<path class="mark {style}" d="{path}"/>')
        mark = f'<svg viewBox="-5 -5 10 10"><path class="mark {style}" d="M0 0{shape}"/></svg>'
        legend.append(f"<li>{mark}{int((groups == group).sum())} {escape(group)}</li>")
    return (
        f'<figure class="card"><figcaption><b>{escape(title)}</b></figcaption><svg viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{escape(title)}">{"".join(drawn)}</svg><ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _row(name: str, words: str, shown: Sequence[str], below: str = "") -> str:
    told = f"<p>{escape(words)}</p>" if words else ""
    pictures = f'<div><div class="strip">{"".join(shown)}</div>{below}</div>'
    return f'<div class="row"><div><p><b>{breakable(name)}</b></p>{told}</div>{pictures}</div>'


def _composition(items: Sequence) -> str:
    """What a cluster is made of, the three largest groups of collection and label."""
    groups = Counter(" · ".join(part for part in (item.collection, item.label) if part) or "no collection" for item in items)
    shown = [f"{100 * count / len(items):.0f} % {group}" for group, count in groups.most_common(3)]
    return ", ".join(shown) + (f", {counted(len(groups) - 3, 'other group')}" if len(groups) > 3 else "")


def _purity(assigned: np.ndarray, items: Sequence, of: str) -> str:
    """The share of those items that have one, whose collection or label is that of most of their cluster, in words."""
    groups = np.array([getattr(item, of) for item in items], object)
    known = groups.astype(bool)
    if len(set(groups[known])) < 2:
        return ""
    clusters = [Counter(groups[known & (assigned == cluster)]) for cluster in np.unique(assigned[known])]
    share = sum(found.most_common(1)[0][1] for found in clusters) / known.sum()
    single = Counter(groups[known]).most_common(1)[0][1] / known.sum()
    return f"; {100 * share:.0f} % have the {of} of most of their cluster ({100 * single:.0f} % if all were in one)"


def _of_different_subjects(rows: np.ndarray, items: Sequence) -> list[int]:
    """The first few rows, each of another subject; fewer where there are not so many."""
    chosen: dict[str, int] = {}
    for row in rows:
        chosen.setdefault(items[row].subject or items[row].name, int(row))
    return list(chosen.values())[:NEAREST]


def _verdict(query, other) -> tuple[str, str]:
    """A mark that needs no colour, and the class of the frame."""
    if not (query.label and other.label):
        return "", ""
    if query.label != other.label:
        return "✗ ", "other"
    return ("✓ ", "same") if query.collection == other.collection else ("≈ ", "like")
