"""What stands in the report, in the order in which a newcomer asks for it."""

import platform
from collections.abc import Sequence
from datetime import date

import torch
import yaml

from .report_curves import SPEED, Curve, card, in_a_line, is_drawn, series_of
from .report_downstream import downstream_tables
from .report_page import code, columns, escape, folded, heading, page, paragraph, section, table
from .report_starts import segmentation_verdicts
from .report_tables import differing_constants, evaluation_tables, first_and_last
from .report_training import Looked, Track, compared, lead, trained
from .report_words import BAD, DOUBTFUL, GOOD, Verdict, overall, stage_name, verdicts, warnings_in_words
from .run_record import RunRecord, StageRecord

MARKS = {GOOD: "✓", DOUBTFUL: "▲", BAD: "✗"}
# the parts of the page in their order: title, and what one has to know to read them
PARTS = {
    "what": ("What was trained on what", ""),
    "verdict": (
        "Did it collapse, and did it help?",
        "A collapse is a network that says the same of everything. The figures are those of the last epoch: ln K is the loss "
        "of one that guesses among K clusters; RankMe counts the directions in which embeddings differ: high is spread, near 1 "
        "is a collapse. Of projections, which fall to clusters, it is another figure than of features, which are handed on.",
    ),
    "downstream": ("What fine-tuned weights score", ""),
    "evaluation": (
        "What frozen weights know of labels",
        "The weights stay as they are; labels are told by neighbours (kNN), by a linear probe, by retrieval (mAP, P@1) and by "
        "k-means (NMI, ARI), beside raw pixels and random weights. More is better. RankMe is that of the features, which are "
        "handed on, not of projections: high is spread, near 1 is a collapse.",
    ),
    "clusters": (
        "What it finds alike: clusters",
        "Nobody named these clusters. Each line is one: how many fall to it, since its prototype, which stands for it, is "
        "nearest; of which collections and labels they are; and those nearest to it. Labels are from labels.csv; none was "
        "learned from.",
    ),
    "neighbours": (
        "What it finds alike: neighbours",
        "A file, and the files of other subjects whose embeddings are nearest, with the cosine. ✓ and a full frame: same "
        "label and collection; ≈ and a dotted one: same label, other collection; ✗ and a dashed one: another label; no frame: "
        "a label is not known. Labels are from labels.csv.",
    ),
    "maps": (
        "Maps of embeddings",
        "Each point is a file. PCA keeps the two directions of most difference; in t-SNE files side by side are alike, and how "
        "far apart groups lie means nothing. Labels are from labels.csv.",
    ),
    "masked": (
        "Masked slices",
        "The slice framed in blue was hidden from the network, which predicted its embedding from the others; then comes the "
        "slice whose embedding is nearest to that prediction, framed in green and with ✓ where that is the hidden one itself.",
    ),
    "attention": (
        "Where attention looks",
        "f_inter reads a volume at a few places of its own choice. For one slice (framed; orange in the bars): how much of its "
        "attention goes to which slices, layer by layer, the mean over heads.",
    ),
    "views": (
        "What the network saw",
        "Files before augmentation, and the views of them in one step, drawn again exactly as in training. Frames are crops; "
        "of a volume one slice is shown.",
    ),
    "curves": ("Curves", "Below each curve are its first and its last value."),
    "configuration": ("Configuration and environment", ""),
    "glossary": ("Words of this page", ""),
}
GLOSSARY = {
    "picture": "a two-dimensional image, or a slice of a volume that stage 1 learned from as if it were one",
    "collection": "the folder of one source of files; labels are told apart within each",
    "f_intra": "the network that embeds one slice or picture",
    "f_inter": "the network that reads the embeddings of a volume's slices, by attention, and embeds the volume",
    "prototype": "the direction that stands for a cluster; a file falls to the cluster whose prototype is nearest",
    "ln K": "the loss of guessing among K clusters",
    "RankMe": "in how many directions embeddings differ (effective rank); near 1 all are alike",
    "R²": "1 − squared error over that of a simple guess: 1 is perfect, 0 as good as the guess, below 0 worse",
    "kNN": "the label that most of the nearest labelled files have, taken for a file's own",
}


def compose(
    records: Sequence[RunRecord], tracks: Sequence[Track], looked: Sequence[Looked], warned: Sequence[dict[int, list]]
) -> str:
    """The whole page. looked: for each track what shows data and networks; warned: the guard's warnings, by stage."""
    names = " and ".join(record.name for record in records) if len(records) < 3 else f"{len(records)} runs"
    title = f"What {names} learned" if tracks else f"What {names} scored"
    content = {
        "what": trained(tracks) + compared(tracks),
        "verdict": _judged(records, tracks, looked, warned),
        "curves": _curves(tracks),
    }
    for part in ("views", "clusters", "neighbours", "maps", "masked", "attention"):
        shown = [(track.name, of.parts[part]) for track, of in zip(tracks, looked) if of.parts[part]]
        content[part] = _beside(shown, len(tracks))
    evaluated = [(record.name, evaluation_tables(record.evaluation, record.stages)) for record in records]
    content["evaluation"] = _beside(evaluated, len(records))
    tuned = [
        (record.name, downstream_tables(record.downstream, record.stages) + _curves_of_tuning(record)) for record in records
    ]
    content["downstream"] = _beside(tuned, len(records))
    content["configuration"] = _configuration(records)
    content["glossary"] = table(["word", "what it means"], [list(line) for line in GLOSSARY.items()], prose=True)
    shown = [name for name in PARTS if content[name]]
    links = "".join(f'<a href="#{name}">{escape(PARTS[name][0])}</a>' for name in shown)
    sections = [section(name, *PARTS[name], content[name]) for name in shown]
    return page(
        title,
        [f"<h1>{escape(title)}</h1>", lead(tracks), f'<nav aria-label="contents"><b>Contents</b>{links}</nav>', *sections],
    )


def _beside(shown: Sequence[tuple[str, str]], runs: int) -> str:
    """The same part of several runs side by side, each under its name."""
    if runs == 1:
        return "".join(text for _, text in shown)
    return columns([f"<div>{heading(name)}{text}</div>" for name, text in shown if text], "wide")


def _judged(records: Sequence[RunRecord], tracks: Sequence[Track], looked: Sequence[Looked], warned: Sequence[dict]) -> str:
    """The answers, what segmentations say of the weights, and then the lines that the answers are from."""
    answers, lines = [], []
    for track, of, warnings in zip(tracks, looked, warned):
        of_stages = {
            place: verdicts(stage, track.evaluation) + of.clusters.get(place, []) for place, stage in track.stages.items()
        }
        answer = overall([verdict for found in of_stages.values() for verdict in found])
        answers.append((track.name, f'<div class="answer {answer.level}">{_marked("p", answer)}</div>'))
        lines.append((track.name, _of_stages(track, of_stages, warnings)))
    found = [
        (record.name, segmentation_verdicts(record.downstream, elsewhere=_elsewhere(record, records))) for record in records
    ]
    segmented = [(name, f'<div class="answer">{_listed(of)}</div>') for name, of in found if of]
    return _beside(answers, len(tracks)) + _beside(segmented, len(records)) + _beside(lines, len(tracks))


def _elsewhere(record: RunRecord, records: Sequence[RunRecord]) -> list[StageRecord]:
    """What the other runs of the page have fine-tuned."""
    return [of for other in records if other is not record for of in other.downstream]


def _of_stages(track: Track, of_stages: dict[int, list[Verdict]], warnings: dict[int, list]) -> str:
    words = ""
    for place, found in of_stages.items():
        words += heading(stage_name(track.stages[place])) + _listed(found)
        said = [paragraph(line) for line in warnings_in_words(warnings.get(place, []))]
        words += folded(f"The guard's warnings on the way ({len(said)})", *said) if said else ""
    return words


def _listed(found: Sequence[Verdict]) -> str:
    return f'<ul class="verdict">{"".join(_marked("li", of) for of in found)}</ul>'


def _marked(tag: str, verdict: Verdict) -> str:
    return f'<{tag} class="{verdict.level}"><b>{MARKS[verdict.level]}</b>{escape(verdict.sentence)}</{tag}>'


def _curves(tracks: Sequence[Track]) -> str:
    """Of each stage a card for every figure, the runs' lines in one chart."""
    parts = []
    for place in (1, 2, 3):
        found: dict[str, list[Curve]] = {}
        for colour, track in enumerate(tracks):
            stage = track.stages.get(place)
            for figure, series in series_of(stage).items() if stage else ():
                found.setdefault(figure, []).append(Curve(track.name, colour, stage.name, series))
        if found:
            names = " and ".join(dict.fromkeys(stage_name(track.stages[place]) for track in tracks if place in track.stages))
            learned = {name: curves for name, curves in found.items() if name not in SPEED}
            speed = {name: found[name] for name in SPEED if name in found}
            parts += [heading(names), _shown(learned, len(tracks) > 1)]
            parts.append(folded("Learning rate, speed, waiting for data", _shown(speed, len(tracks) > 1)) if speed else "")
    return "".join(parts)


def _shown(found: dict[str, list[Curve]], several: bool = False) -> str:
    """Cards of the curves that there are to be looked at, and lines of the others."""
    drawn = [card(name, curves, several) for name, curves in found.items() if is_drawn(curves)]
    return columns(drawn) + "".join(in_a_line(name, curves, several) for name, curves in found.items() if not is_drawn(curves))


def _curves_of_tuning(record: RunRecord) -> str:
    """The curves of scripts downstream, for those who ask."""
    parts = []
    for stage in record.downstream:
        found = {figure: [Curve(stage.name, 0, stage.name, series)] for figure, series in series_of(stage).items()}
        parts.append(folded(f"{stage.name}: curves", _shown(found)) if found else "")
    return "".join(parts)


def _configuration(records: Sequence[RunRecord]) -> str:
    """Of each stage all that it was told; of downstream runs of one task the first one's, and what differs."""
    parts = []
    for record in records:
        parts.append(heading(record.name) if len(records) > 1 else "")
        tasks: dict[str, dict[str, StageRecord]] = {}
        for of in record.downstream:
            tasks.setdefault(of.script, {})[of.name] = of
        first = [next(iter(of_task.values())) for of_task in tasks.values()]
        parts += [_told(stage, whole=stage.stage > 0 or stage in first) for stage in [*record.stages, *record.downstream]]
        for task, of_task in tasks.items():
            differing = differing_constants(of_task) if len(of_task) > 1 else ""
            parts.append(folded(f"{task}: constants in which its {len(of_task)} runs differ", differing) if differing else "")
    versions = f"Python {platform.python_version()} and torch {torch.__version__}"
    made = f"This page was made on {date.today().isoformat()}, with {versions}."
    return "".join(parts) + paragraph(f"{made} It holds pictures and file names of the data: pass it on as you would these.")


def _told(stage: StageRecord, whole: bool) -> str:
    """Environment and figures of a stage, and its constants if `whole`."""
    about = {"run": stage.identity.get("id"), **stage.identity.get("environment", {})}
    about |= {f"started from {path}": f"SHA-256 {digest}" for path, digest in stage.about.get("inputs", {}).items()}
    about |= {f"left out: {name}": why for name, why in stage.left_out.items()}
    known = {name: value for name, value in about.items() if value is not None}
    constants = yaml.safe_dump(stage.config, sort_keys=False, allow_unicode=True) if stage.config and whole else ""
    told = table(["", ""], [[name, str(value)] for name, value in known.items()])
    what = "constants, environment, figures" if constants else "environment, figures"
    return folded(f"{stage.name}: {what}", told, code(constants) if constants else "", first_and_last(stage))
