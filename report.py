"""What a run has learned, to be looked at: one HTML file that needs nothing else, of a pipeline or of one script's run.

What was trained on what, whether it collapsed, curves, views that the network saw, what it finds alike, where attention
looks, what the weights are worth. Several runs are put side by side. What a run does not have is left out.

Reads    runs/<name>/ as run_pipeline.py or a script leaves it; its data and weights, where they still are
Writes   <run>/report.html, or with several runs report.html beside the first one's folder
Run      python report.py runs/demo
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch
import tyro

from datasets.errors import DataError
from datasets.files import Item, spread, subject_of, thinned
from datasets.pictures import Pictures
from datasets.seen import as_grey, files_of, seen_crops, seen_views, some_pictures
from datasets.views import mask_draws
from datasets.whole_files import network_input, whole_files
from engine.checkpoint import write_atomically
from engine.config import parse
from engine.embedding import computing_device
from engine.errors import UserError, speaking_to_people
from engine.neighbours import nearest_strangers
from engine.projections import principal_components, tsne_map
from engine.report_contents import compose
from engine.report_page import note, paragraph
from engine.report_pictures import (
    about,
    attention_row,
    cluster_sizes,
    maps,
    nearest_in_words,
    neighbour_rows,
    prototype_rows,
    seen_rows,
)
from engine.report_training import Looked, Track, tracks_of
from engine.report_volumes import VolumeLook, masked_slices, montage
from engine.report_words import Verdict, cluster_use, stage_name
from engine.run_record import StageRecord, read_run
from losses.collapse import warnings_again
from losses.masked import draw_mask
from models.errors import WeightsError
from models.looking import attended_slices, load_image_network, load_whole_network, look_at_volumes
from models.pretrained import load_encoders

ASKED, NEAREST = 8, 5  # files whose neighbours are shown, and how many
MASKED, ATTENDING = 6, 3  # volumes of which a masked slice is shown; of which attention is
PROJECTIONS = {"PCA": principal_components, "t-SNE": tsne_map}
Runs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(kw_only=True)
class ReportConfig:
    runs: Runs = ()  # folders of runs, such as runs/demo or runs/ssl_swav_2D; several are compared
    output: str = ""  # the HTML file ("" = report.html in the run's folder, or beside it for several)
    images: int = 400  # pictures, at most, that are embedded (0 = no pictures of images)
    volumes: int = 64  # volumes, at most, that are embedded (0 = no pictures of volumes)


def main(config: ReportConfig) -> None:
    if not config.runs:
        raise UserError("No run is named; give its folder, such as: python report.py runs/demo")
    records = [read_run(Path(run)) for run in config.runs]
    tracks = tracks_of(records)
    looked = [look(track, config) for track in tracks]
    warned = [{number: warnings_again(stage.epochs) for number, stage in track.stages.items()} for track in tracks]
    folder = records[0].folder if len(records) == 1 else records[0].folder.resolve().parent
    output = Path(config.output) if config.output else folder / "report.html"
    text = compose(records, tracks, looked, warned)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); choose another --output.") from None
    print(f"wrote {output} ({len(text.encode()) / 1e6:.1f} MB); any browser opens it.")


def look(track: Track, config: ReportConfig) -> Looked:
    """The parts of the page that need the data and the weights."""
    clusters: dict[int, list[Verdict]] = {}
    parts = dict.fromkeys(("views", "clusters", "neighbours", "maps", "masked", "attention"), "")

    def attempt(what: str, part: str, make: Callable[[], dict[str, str]]) -> None:
        """Adds what `make` gives; where data or weights are gone, or others, a sentence that says so in `part`."""
        try:
            made = make()
        except (UserError, DataError, WeightsError) as error:
            made = {part: note(f"{what} cannot be shown: {error}")}
        for name, text in made.items():
            parts[name] += text

    for number, stage in track.stages.items():
        attempt(f"Views of stage {number}", "views", lambda stage=stage: {"views": views(stage)})
    if config.images and 1 in track.stages:
        attempt("Clusters of stage 1", "clusters", lambda: image_clusters(track.stages[1], config.images, clusters))
    if config.images:
        attempt("Embeddings of pictures", "maps", lambda: image_likeness(track, config.images))
    if config.volumes and track.last.stage > 1:
        attempt("What the network makes of volumes", "maps", lambda: of_volumes(track.last, config.volumes, clusters))
    return Looked(parts, clusters)


# ---- the files of a run


def same_files(stage: StageRecord) -> tuple[list[Item], list[Item]]:
    """The images and volumes that it learned from. Raises `DataError` when other files are there now."""
    return files_of(stage.stage, stage.constants(), stage.left_out, stage.data)


def views(stage: StageRecord) -> str:
    """Before and after augmentation, of the first step of the last epoch."""
    if not stage.epochs:
        return ""
    images, volumes = same_files(stage)
    config, epoch = stage.constants(), stage.epochs[-1]["epoch"]
    told = paragraph(f"Stage {stage.stage}, files of the first step of epoch {epoch + 1}:")
    if stage.stage == 1:
        pictures = Pictures(images, volumes, whole_range=config.normalise == "imagenet")
        return told + seen_rows(seen_crops(1, config, pictures, epoch, stage.batch(), stage.steps_per_epoch))
    rows = seen_rows(seen_views(config, volumes, epoch, stage.batch()))
    if images:
        how = epoch, stage.batch("image_batch_size"), stage.steps_per_epoch
        rows += seen_rows(seen_crops(stage.stage, config, Pictures(images), *how))
    return told + rows


# ---- what the network makes of images


def image_clusters(stage: StageRecord, most: int, clusters: dict[int, list[Verdict]]) -> dict[str, str]:
    """Prototypes of stage 1, which only its checkpoints hold. clusters: gets how they are used."""
    network = load_image_network(stage.last_model(), stage.config["arch"], stage.config["scores"])
    config = stage.constants()
    side = config.size_crops[0]

    def scores(pictures: torch.Tensor) -> torch.Tensor:
        return network.prototypes(network.head(network.slice_encoder.pooled(pictures)))[0]

    sources, pixels, found = picture_pass(stage, network, (side, side), config.normalise, most, scores)
    items, numbers = zip(*sources)
    clusters[1] = [cluster_use(cluster_sizes(found), "Pictures")]
    rows = prototype_rows(found, items, numbers, lambda row: pixels[row], "picture")
    return {"clusters": paragraph("Stage 1, pictures:") + rows}


def image_likeness(track: Track, most: int) -> dict[str, str]:
    """Maps and neighbours of the pictures that stage 1, or 3, learned from, by the last stage's f_intra."""
    shown = next((of for number, of in track.stages.items() if number == 1 or of.config.get("image_path")), None)
    if shown is None:
        return {}
    encoders, _ = load_encoders(track.last.own_weights())
    config = track.last.constants()
    size = (config.size_crops[0],) * 2 if track.last.stage == 1 else config.target_shape[1:]
    encoders.to(computing_device())
    how = encoders.slice_encoder, size, config.normalise, most, encoders.embed_images
    sources, pixels, found = picture_pass(shown, *how)
    return likeness("Pictures", track.last, found, sources, lambda row: pixels[row])


def picture_pass(
    stage: StageRecord, network, size, normalise: str, most: int, compute
) -> tuple[list, list[np.ndarray], np.ndarray]:
    """Some pictures of a stage: (item, slice) of each, its pixels, and what `compute` gives of it, (n, D)."""
    images, volumes = same_files(stage)
    pictures = Pictures(images, volumes, whole_range=normalise == "imagenet")
    loader, chosen = some_pictures(pictures, tuple(size), most, stage.config["seed"])
    device = computing_device()
    network.to(device)
    pixels, rows = [], []
    with torch.no_grad():
        for batch in loader:
            (given,) = network_input("images", batch, normalise)
            pixels += [as_grey(one, normalise) for one in given]
            rows.append(compute(given.to(device)).float().cpu().numpy())
    return [pictures.source(index) for index in chosen], pixels, np.concatenate(rows)


# ---- what the network makes of volumes


def of_volumes(stage: StageRecord, most: int, clusters: dict[int, list[Verdict]]) -> dict[str, str]:
    """All that is shown of volumes, from the weights of stage 2 or 3. clusters: gets how they are used."""
    network = load_whole_network(stage.own_weights()).to(computing_device())
    items = thinned(same_files(stage)[1], most)
    looks = volume_pass(network, items, stage.constants())
    embeddings = np.stack([look.found["volumes"] for look in looks])

    told = paragraph(f"{stage_name(stage)}, its weights:")
    sources = [(item, None) for item in items]
    parts = likeness("Volumes", stage, embeddings, sources, lambda row: montage(looks[row]), "broad")
    parts["masked"] = told + masked_slices(looks, [subject_of(item) for item in items], spread(items, MASKED))
    if hasattr(network, "prototypes"):
        parts["clusters"], clusters[stage.stage] = joint_clusters(network, looks, embeddings)
    if network.masked.volume_encoder.axis == "slices":
        parts["attention"] = told + attention(network, looks)
    else:
        parts["attention"] = note(
            "This f_inter attends along features, as the published one does, so no slice is looked at more."
        )
    return parts


@torch.no_grad()
def volume_pass(network, items: list[Item], config: SimpleNamespace) -> list[VolumeLook]:
    """Whole volumes, each with a mask that no training step uses."""
    config.workers, device, looks = 0, computing_device(), []
    for batch in whole_files("volumes", items, config):
        pixels, real = network_input("volumes", batch, config.normalise)
        masked = draw_mask(mask_draws(batch, config.seed, real.shape[1], views=1), real, config.mask_ratio)
        computed = look_at_volumes(network, pixels.to(device), real, masked)
        found = {name: of.float().cpu().numpy() for name, of in computed.items()}
        for row, index in enumerate(batch["on_host"]["index"]):
            count = int(real[row].sum())
            own = {name: of[row] if name == "volumes" else of[row][:count] for name, of in found.items()}
            grey = np.stack([as_grey(one, config.normalise) for one in pixels[row, :count]])
            numbers = batch["on_host"]["positions"][row, :count].round().astype(int)
            looks.append(VolumeLook(items[index], grey, numbers, masked[row, :count].numpy(), own))
    return looks


def joint_clusters(network, looks: list[VolumeLook], embeddings: np.ndarray) -> tuple[str, list[Verdict]]:
    """Prototypes of stage 3, of volumes, and of slices; and how they are used."""
    device = computing_device()

    def scores(prototypes, rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return prototypes(torch.from_numpy(rows).to(device))[0].cpu().numpy()

    items, of_volumes = [look.item for look in looks], scores(network.prototypes.volumes, embeddings)
    whole = prototype_rows(of_volumes, items, [None] * len(items), lambda row: montage(looks[row]), "volume", "broad")
    owners = [(look, place) for look in looks for place in range(len(look.numbers))]
    of_slices = scores(network.prototypes.slices, np.concatenate([look.found["projections"] for look in looks]))
    items, numbers = [look.item for look, _ in owners], [int(look.numbers[place]) for look, place in owners]
    single = prototype_rows(of_slices, items, numbers, lambda row: owners[row][0].pixels[owners[row][1]], "slice")
    used = [cluster_use(cluster_sizes(of_volumes), "Volumes"), cluster_use(cluster_sizes(of_slices), "Slices")]
    return paragraph("Stage 3, volumes:") + whole + paragraph("Stage 3, slices of volumes:") + single, used


def attention(network, looks: list[VolumeLook]) -> str:
    """Of some volumes, where the attention of the slice a third from the start goes."""
    rows, chosen = [], spread([look.item for look in looks], ATTENDING)
    for look in (look for look in looks if look.item in chosen and len(look.numbers) > 2):
        slices = torch.from_numpy(look.found["slices"]).to(computing_device())
        layers = attended_slices(network.masked.volume_encoder, slices)
        query = len(look.numbers) // 3
        shares = np.stack([shares[query].cpu().numpy() for shares, _ in layers])
        outside = np.array([float(lost[query]) for _, lost in layers])
        rows.append(attention_row(about(look.item), query, shares, outside, look.pixels, look.numbers))
    return "".join(rows)


# ---- both


def likeness(
    what: str, stage: StageRecord, embeddings: np.ndarray, sources: list[tuple], picture, kind: str = ""
) -> dict[str, str]:
    """Maps of a stage's embeddings, and files with what lies nearest to them.

    sources: item and slice of each; picture: row → pixels.
    """
    items, numbers = zip(*sources)
    subjects = np.array([subject_of(item) for item in items])
    place = {item: row for row, item in reversed(list(enumerate(items)))}
    asked = np.array([place[item] for item in spread(list(place), ASKED)])
    found = nearest_strangers(embeddings, subjects, asked, NEAREST)
    head = paragraph(f"{what}, {len(items)} of those that were learned from, embedded by the weights of stage {stage.stage}:")
    rows = nearest_in_words(embeddings, items, subjects) + neighbour_rows(items, numbers, asked, found, picture, kind)
    return {"maps": head + maps(embeddings, items, PROJECTIONS), "neighbours": head + rows}


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(ReportConfig))
