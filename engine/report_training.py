"""What was trained on what, and for how long: the stages of runs, told in a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .report_page import folded, heading, paragraph, table
from .report_tables import differing_constants
from .report_words import Verdict, stage_name
from .run_record import RunRecord, StageRecord
from .words import counted, duration

LEARNS = {
    1: "f_intra, a network that embeds a slice: crops of one picture must fall to the same cluster",
    2: "f_inter, attention over the slices of a volume: masked slices are predicted from their neighbours, f_intra stays",
    3: "both together: two views of a volume, and the same slice in both, must fall to the same cluster",
}


@dataclass(frozen=True)
class Track:
    """The stages, by their numbers, that one method has gone through in one run."""

    name: str
    stages: dict[int, StageRecord]
    evaluation: dict = field(default_factory=dict)  # of the run's weights

    @property
    def last(self) -> StageRecord:
        return self.stages[max(self.stages)]


@dataclass(frozen=True)
class Looked:
    """What looking at data with a track's networks has given: pieces of the page by part, and the use of clusters by stage."""

    parts: dict[str, str]
    clusters: dict[int, list[Verdict]]


def tracks_of(records: Sequence[RunRecord]) -> list[Track]:
    """Each run's stages by method; called after the run, and after the method where that has to be told."""
    names = [record.name for record in records]
    tracks = []
    for record in records:
        name = record.name if names.count(record.name) == 1 else str(record.folder)
        methods = list(dict.fromkeys(stage.method for stage in record.stages))
        for method in methods:
            of_method = {stage.stage: stage for stage in record.stages if stage.method == method}
            tracks.append(Track(f"{name}, {method}" if len(methods) > 1 else name, of_method, record.evaluation))
    return tracks


def lead(tracks: Sequence[Track]) -> str:
    """Each run in a sentence."""
    sentences = []
    for track in tracks:
        loaders = [loader for stage in track.stages.values() for loader in stage.data]
        most = {loader["what"]: max(of["items"] for of in loaders if of["what"] == loader["what"]) for loader in loaders}
        data = " and ".join(f"{count} {what}" for what, count in most.items()) or "files"
        time = duration(sum(stage.seconds for stage in track.stages.values()))
        stages = ", ".join(map(str, track.stages)).replace(", 3", " and 3") if len(track.stages) > 1 else str(*track.stages)
        numbered = f"stage{'s' if len(track.stages) > 1 else ''} {stages}"
        method = track.last.method
        sentences.append(
            f"{track.name}: learned from {data} without labels, by {method}, {numbered} of 3, in {time} of training."
        )
    return "".join(paragraph(sentence) for sentence in sentences)


def trained(tracks: Sequence[Track]) -> str:
    parts = []
    for track in tracks:
        rows = []
        for place, stage in track.stages.items():
            rows.append([stage_name(stage), LEARNS[place], _data(stage), _network(stage), _time(stage), _machine(stage)])
        head = ["stage", "what it learns", "from", "network", "training", "on"]
        parts.append((heading(track.name) if len(tracks) > 1 else "") + table(head, rows, prose=True))
    return "".join(parts)


def _data(stage: StageRecord) -> str:
    """Kinds, numbers and collections of what it learned from."""
    told = []
    for loader in stage.data:
        collections = ", ".join(f"{name or 'no collection'} {files}" for name, files in loader["collections"].items())
        files = sum(loader["collections"].values())
        slices = f" (from {files} files)" if files != loader["items"] else ""
        told.append(f"{loader['items']} {loader['what']}{slices}: {collections}")
    paths = [stage.config[name] for name in ("data_path", "volume_path", "image_path") if stage.config.get(name)]
    left_out = f"; {counted(len(stage.left_out), 'file')} left out as bad" if stage.left_out else ""
    return ("; ".join(told) or f"the files of {' and '.join(paths)}") + left_out


def _network(stage: StageRecord) -> str:
    config = stage.config
    parts = [config.get("arch", "").replace("resnet", "ResNet-")]
    if config.get("target_shape"):
        parts.append(
            f"{' × '.join(map(str, config['target_shape']))} (slices × height × width), "
            f"embeddings of {config.get('d_model')} numbers"
        )
    elif config.get("size_crops"):
        crops = zip(config["nmb_crops"], config["size_crops"])
        parts.append(" + ".join(f"{count} crops of {size}²" for count, size in crops))
    clusters = [f"{round(math.exp(value))} clusters of {name.removesuffix('_ln_k')}"
                for name, value in (stage.epochs[-1].items() if stage.epochs else ()) if name.endswith("_ln_k")]  # fmt: skip
    return ", ".join([*parts, *clusters])


def _time(stage: StageRecord) -> str:
    steps = stage.epochs[-1]["step"] if stage.epochs else 0
    state = f"; {stage.unfinished}" if stage.unfinished else ""
    done = f"{counted(len(stage.epochs), 'epoch')}, {counted(steps, 'step')}"
    return f"{done}, {stage.batch()} a step, {duration(stage.seconds)}{state}"


def _machine(stage: StageRecord) -> str:
    told = stage.identity.get("environment", {})
    processes = f", {told['processes']} processes" if told.get("processes", 1) > 1 else ""
    return f"{told['device']}{processes}" if told else "not recorded"


def compared(tracks: Sequence[Track]) -> str:
    """Constants in which the same stage of several runs differs."""
    parts = []
    for place in (1, 2, 3):
        named = {track.name: track.stages[place] for track in tracks if place in track.stages}
        told = differing_constants(named) if len(named) > 1 else ""
        parts.append(folded(f"Constants of stage {place} that differ", told) if told else "")
    return "".join(parts)
