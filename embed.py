"""Embeddings of all files of a folder, and the files that are most like a given one.

Each volume becomes a row (or with --what slices each of its slices), and so does each picture. Files are read as they come and
rows written piece by piece, so that memory does not grow with their number. The embeddings are those of `load_model`.

Reads    FOLDER: DICOM, NIfTI, MHA/MHD, NRRD, NPY, NPZ, HDF5, TIFF, PNG, JPG, BMP, however deep; its labels.csv, if it has one
Writes   --output: Parquet; or NPY, and beside it a CSV table with the name of each row
Run      python embed.py SCANS --weights weights/swav3D.pth --output embeddings.parquet
         python embed.py --query SCANS/case_7.nii.gz --among embeddings.parquet --weights weights/swav3D.pth
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from datasets.files import has_labels, read_labels
from datasets.sources import LABELS, Found, Source
from datasets.streamed import AnyFiles, Place, files_at, streamed
from datasets.views import plain_view
from datasets.volumes import intensities, standardise
from engine.checkpoint import sha256
from engine.config import parse
from engine.embedding import computing_device
from engine.embedding_files import EmbeddingWriter, about_embeddings, read_pieces
from engine.errors import UserError, speaking_to_people
from engine.listing import told
from engine.processes import autocast, computing_dtype, to_device
from engine.similar import most_similar
from engine.tables import print_table
from models.frozen import embed_volumes, shown_to, slice_network
from models.pretrained import Encoders, load_encoders
from models.slice_encoder import CHUNK

Folder = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


@dataclass(kw_only=True)
class EmbeddingConfig:
    folder: Folder = ""  # whose files are embedded; or a single file
    weights: str = ""  # weight file of any stage and origin
    output: str = "embeddings.parquet"  # .parquet; or .npy, with a .csv beside it that names its rows
    what: Literal["volumes", "slices"] = "volumes"  # a row for each volume, or for each of its slices
    # similar cases
    query: str = ""  # a file in --among by its name there, or any other file: which ones are most like it?
    among: str = ""  # embeddings that are searched, as --output wrote them
    nearest: int = 10  # how many are told
    # which files
    include: tuple[str, ...] = ("*",)  # patterns of file names, or of paths below FOLDER
    exclude: tuple[str, ...] = LABELS  # patterns that are left out: segmentations
    # networks and machine
    sampling: Literal["", "da018", "da020"] = ""  # of keys ("" = as the file tells, or da018 for published ones)
    resnet_pretrained: str = ""  # file of stage 1 for weights without a ResNet (published mask_*.pth)
    batch_size: int = 8  # files at a time
    workers: int = 2  # loader processes (0 = none)
    on_bad_file: Literal["stop", "skip"] = "stop"  # skip: what cannot be read has no row, and is named at the end
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 where the processor has it, else fp32
    overwrite: bool = False  # replace --output
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: EmbeddingConfig) -> None:
    if config.query or config.among:
        return tell_similar(config)
    if not config.folder or not config.weights:
        raise UserError("Name a folder and weights: python embed.py FOLDER --weights weights/swav3D.pth.")
    output = Path(config.output)
    refuse_output(output, config.overwrite)
    encoders, about = loaded(config)
    root, found = found_in(Path(config.folder), config)
    left_out = {fault: fault for fault in found.faults}
    files = len(found.sources) + len(found.faults)
    with EmbeddingWriter(output, about) as out:
        for rows, embeddings in embedded(root, found.sources, encoders, config, left_out):
            out.add(rows, embeddings)
        if not out.count:
            first = next(iter(left_out.values()))
            raise UserError(f"None of the {files} files of {config.folder} can be read; the first: {first}")
    if left_out:
        print(told(left_out))
    beside = f", their names in {out.table}" if out.table else ""
    print(f"{out.count} embeddings of {files - len(left_out)} files are in {output}{beside}")


def refuse_output(output: Path, overwrite: bool) -> None:
    if output.suffix not in (".parquet", ".npy"):
        raise UserError(f"--output {output} ends in neither .parquet nor .npy, by which readers know such files.")
    if output.exists() and not overwrite:
        raise UserError(f"{output} is there already; choose another --output, or replace it with --overwrite.")


def loaded(config: EmbeddingConfig) -> tuple[Encoders, dict[str, str]]:
    """The encoders, and what a file of their embeddings says of them."""
    encoders, said = load_encoders(config.weights, config.sampling, config.resnet_pretrained)
    print(*said, sep="\n")
    encoders.to(computing_device())
    return encoders, {"weights": config.weights, "sha256": sha256(Path(config.weights)), "what": config.what}


def found_in(place: Path, config: EmbeddingConfig) -> tuple[Path, Found]:
    """A folder and its files, or a single file and its folder. Raises `UserError` for unreadable ones that are not skipped."""
    shown = partial(tqdm, leave=False, delay=1)
    root, found = files_at(place, max(1, config.workers), config.include, config.exclude, shown)
    if found.faults and config.on_bad_file == "stop":
        raise UserError(f"{found.faults[0]} ({len(found.faults)} such files; --on_bad_file skip goes on without them.)")
    for reason, count in found.left_out.items():
        if count:
            print(f"left out: {count} {reason}")
    return root, found


def embedded(
    root: Path, sources: list[Source], encoders: Encoders, config: EmbeddingConfig, left_out: dict[str, str]
) -> Iterator[tuple[list[dict], np.ndarray]]:
    """Rows (`engine.embedding_files.COLUMNS`) and their embeddings (n, D) float32, a batch of files at a time.

    left_out: takes up what cannot be read; unless such files are skipped, `UserError` is raised.
    """
    labels = read_labels(root) if has_labels(root) else {}
    bound = encoders.volume_encoder.slices if encoders.volume_encoder else None
    files = AnyFiles(sources, shown_to(encoders), bound, slices=config.what == "slices")
    with tqdm(total=len(sources), desc="embedding", unit="file") as bar:
        for batch in streamed(files, config.batch_size, config.workers):
            for number, fault in batch["faults"].items():
                if config.on_bad_file == "stop":
                    raise UserError(f"{fault} (--on_bad_file skip goes on without it.)")
                left_out[sources[number].name] = fault
            of_place = embed_batch(batch, encoders, config.precision)
            if of_place:
                rows = [row_of(sources[place.file], place, labels) for place in sorted(of_place)]
                yield rows, np.stack([of_place[place] for place in sorted(of_place)])
            bar.update(len(batch["files"]))


@torch.no_grad()
def embed_batch(batch: dict, encoders: Encoders, precision: str) -> dict[Place, np.ndarray]:
    """The embedding (D,) of each volume, picture or slice of a batch of `streamed`."""
    device, normalise = computing_device(), shown_to(encoders).normalise
    of_place: dict[Place, np.ndarray] = {}
    with autocast(computing_dtype(precision, device), device):
        if batch["volumes"]:
            pixels = plain_view(to_device(batch["volumes"], device), normalise, torch.float32)
            of_place |= zip(batch["volumes"]["places"], on_host(embed_volumes(encoders, *pixels)))
        if batch["slices"]:
            for first in range(0, len(batch["slices"]["places"]), CHUNK):
                some = {name: values[first : first + CHUNK] for name, values in batch["slices"].items()}
                of = to_device(some, device)
                pixels = standardise(intensities(of["pixels"], of["low"], of["high"], normalise, torch.float32), normalise)
                images = pixels if pixels.ndim == 4 else pixels[:, None]
                of_place |= zip(some["places"], on_host(slice_network(encoders)(images)))
    return of_place


def on_host(embeddings: torch.Tensor) -> np.ndarray:
    return embeddings.float().cpu().numpy()


def row_of(source: Source, place: Place, labels: dict[str, dict]) -> dict:
    """What a row is of. Label and subject are those of labels.csv; names that a header tells of a patient are not written."""
    kind = "picture" if source.is_picture else "slice" if place.slice >= 0 else "volume"
    numbers = {name: None if getattr(place, name) < 0 else getattr(place, name) for name in ("frame", "slice")}
    known = labels.get(source.name, {})
    told_of = {name: known.get(name) or "" for name in ("label", "subject")}
    return {"file": source.name, "kind": kind, **numbers, "collection": source.collection, **told_of}


def tell_similar(config: EmbeddingConfig) -> None:
    """A table of the files that are most like the query: of its kind, and of other subjects where these are known."""
    if not config.query or not config.among:
        raise UserError("Name a case and embeddings to search: python embed.py --query CASE --among embeddings.parquet.")
    row, vector = query_of(config)
    known = {"file": row["file"]} | ({"subject": row["subject"]} if row["subject"] else {})
    wanted = lambda other: other["kind"] == row["kind"] and all(other[name] != of for name, of in known.items())  # noqa: E731
    found = most_similar(read_pieces(Path(config.among)), vector, config.nearest, wanted)
    if not found:
        raise UserError(f"{config.among} holds no other {row['kind']} than {row['file']} to compare it with.")
    numbers = [name for name in ("frame", "slice") if any(other[name] is not None for _, other in found)]
    shown = ["file", *numbers, *(name for name in ("collection", "label") if any(other[name] for _, other in found))]
    title = f"most like {row['file']}" + (f", slice {row['slice']}" if row["slice"] is not None else "")
    table = Table("cosine", *shown, title=title)
    for cosine, other in found:
        table.add_row(f"{cosine:.4f}", *("" if other[name] is None else escape(str(other[name])) for name in shown))
    print_table(table)


def query_of(config: EmbeddingConfig) -> tuple[dict, np.ndarray]:
    """The row that is asked about, and its embedding (D,); of several slices or frames of one file the middle one.

    A name in the file of embeddings needs no weights; any other file is embedded by those that made it.
    """
    among = Path(config.among)
    about = about_embeddings(among)
    pieces = [one for rows, block in read_pieces(among) for one in zip(rows, block) if one[0]["file"] == config.query]
    if not pieces:
        if not Path(config.query).exists():
            raise UserError(f"--query {config.query} is neither a file nor the name of one in {among}.")
        if not config.weights:
            made_by = about.get("weights", "that made it")
            raise UserError(f"--query {config.query} is not in {among}; name the weights {made_by} with --weights.")
        config = replace(config, what=about.get("what", config.what), on_bad_file="stop")
        encoders, own = loaded(config)
        if about.get("sha256", own["sha256"]) != own["sha256"]:
            raise UserError(f"{among} was made with other weights ({about['weights']}) than {config.weights}; name those.")
        root, found = found_in(Path(config.query), config)
        pieces = [one for rows, block in embedded(root, found.sources, encoders, config, {}) for one in zip(rows, block)]
    return pieces[len(pieces) // 2]


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(EmbeddingConfig))
