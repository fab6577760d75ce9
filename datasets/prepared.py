"""The collections that are prepared: under which names, whose, in which split; their manifests and tables of labels.

With de-identification a volume is called by a digest of what is in it, and a person by the first of the volumes; no name, and
no digest of a name, which could be guessed, is written.
"""

import contextlib
import fcntl
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import yaml

from .errors import DataError
from .files import hash_of
from .identity import stem_of
from .manifest import COLUMNS, NAME, PICTURE_COLUMNS, Manifest, write_text
from .sources import Source
from .tables import PRIVATE, append_labels, read_private_map, write_labels, write_private_map
from .writing import Place, Rows, pending, picture_folder

ALIKE = """spacing window crop_body slice_axis array replace_nan deidentify subject shares slice_step least_content largest
    stack_pictures""".split()  # constants that may not change within a collection


class PreparedData:
    """What is written by one call, and what was before. A context, which leaves tidy tables also when it is interrupted.

    Raises `DataError` when a collection is there that was prepared with other constants, or not by this script.
    """

    def __init__(self, config, sources: list[Source]):
        self.config, self.sources = config, sources
        self.mirror = config.mirror
        self.private = read_private_map(config.private_map)
        self.opened: list[tuple[Manifest, Callable]] = []  # with the files of a row
        names = sorted({self._collection(source) for source in sources})
        self.volumes = {name: self._volumes(name) for name in names} if config.data_path else {}
        self.pictures = {name: self._pictures(name) for name in names} if config.image_path else {}
        self.places = self._places()
        self.notes: list[tuple[str, str]] = []
        self.locks = contextlib.ExitStack()

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.locks.close()
            raise
        return self

    def _begin(self) -> None:
        # labels.csv is of all collections; so one call at a time writes below a root
        for folder in {Path(root) for root in (self.config.data_path, self.config.image_path) if root}:
            self._lock(folder)
        for manifest in self._manifests():
            manifest.path.parent.mkdir(parents=True, exist_ok=True)
            if Manifest(manifest.path, manifest.columns).sources.keys() != manifest.sources.keys():
                raise DataError(f"{manifest.path} was changed by another call meanwhile; give the same command again.")
        if self.config.overwrite:
            for manifest, files in self.opened:
                for file in (file for row in manifest.rows for file in files(row)):
                    file.unlink(missing_ok=True)
                manifest.forget()
        if self.mirror:
            for manifest, files in self.opened:
                for source in set(manifest.sources) & self.gone():
                    for file in (file for row in manifest.sources.pop(source) for file in files(row)):
                        file.unlink(missing_ok=True)
        settings = yaml.safe_dump(_settings(self.config))
        for manifest in self._manifests():
            if manifest.path.is_file():
                manifest.tidy()  # its last line may be half of one
            _clear(manifest.path.parent)
            write_text(_settings_file(manifest.path), settings)
        if self.config.data_path:
            write_labels(Path(self.config.data_path), self._volume_labels())
        for collection in self.pictures:  # training takes all pictures where there is no such folder
            picture_folder(Path(self.config.image_path), "train", collection).mkdir(parents=True, exist_ok=True)
        if self.config.private_map:
            write_private_map(Path(self.config.private_map), self.private)

    def __exit__(self, kind, error, trace) -> None:
        for manifest in self._manifests():
            _clear(manifest.path.parent)
            if manifest.sources:
                manifest.tidy()
        if self.config.data_path:
            write_labels(Path(self.config.data_path), self._volume_labels())
        if self.config.image_path and any(source.is_picture and source.label for source in self.sources):
            write_labels(Path(self.config.image_path), self._picture_labels())
        self.locks.close()

    def has(self, source: Source) -> bool:
        """Whether all that is to be made of it is there."""
        collection = self.places[source.key].collection
        if self.config.image_path and (self.config.overwrite or source.key not in self.pictures[collection].sources):
            return False
        if source.is_picture or not self.config.data_path:
            return True
        manifest = self.volumes[collection]
        rows = [] if self.config.overwrite else manifest.sources.get(source.key, [])
        return bool(rows) and all((manifest.path.parent / row["file"]).is_file() for row in rows)

    def add(self, source: Source, rows: Rows) -> None:
        """Takes down what was made of a source, and only then lets training see its volumes: some may be of test."""
        collection = self.places[source.key].collection
        if rows.volumes:
            manifest = self.volumes[collection]
            manifest.add(source.key, rows.volumes)
            append_labels(Path(self.config.data_path), self._labels_of(collection, rows.volumes, source.label))
            for row in rows.volumes:
                os.replace(pending(manifest.path.parent / row["file"]), manifest.path.parent / row["file"])
        if rows.pictures:
            self.pictures[collection].add(source.key, rows.pictures)
        self.notes += [(source.name, note) for note in rows.notes]

    def gone(self) -> set[str]:
        """Keys of sources that were prepared before and are not among those of this call."""
        before = {key for manifest in self._manifests() for key in manifest.sources}
        return before - {source.key for source in self.sources}

    def people(self) -> Counter:
        """How many people are in each split."""
        return Counter({place.subject: place.split for place in self.places.values()}.values())

    def _lock(self, folder: Path) -> None:
        """One call at a time writes into a folder; the lock ends with the process, however that ends."""
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        self.locks.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.locks.close()
            raise DataError(f"another call is preparing data in {folder}; wait for its end.") from None
        except OSError:
            pass  # a file system without locks

    # ---- names

    def _collection(self, source: Source) -> str:
        return self.config.collection or source.collection

    def _places(self) -> dict[str, Place]:
        """By key of the source."""
        named, places = Counter(self._name(source) for source in self.sources), {}
        called = self._pseudonyms() if self.config.deidentify else {source.subject: source.subject for source in self.sources}
        asked: dict[str, set[str]] = {}
        for source in self.sources:
            asked.setdefault(called[source.subject], set()).update({source.split} - {""})
        self.contradicted = sum(len(splits) > 1 for splits in asked.values())
        for source in self.sources:
            name, collection, person = self._name(source), self._collection(source), called[source.subject]
            case = name if named[name] == 1 else f"{name}_{source.key}"
            split = next((split for split in ("test", "valid", "train") if split in asked[person]), "") or self._split(person)
            places[source.key] = Place(case, person, split, collection)
            values = (collection, case, source.name, person, source.subject)
            self.private[collection, case] = dict(zip(PRIVATE, values))
        return places

    def _name(self, source: Source) -> str:
        if self.config.deidentify:
            return f"c{source.key}"
        parts = PurePosixPath(stem_of(source.name) if source.kind != "slices" else source.name).parts
        inner = parts[1:] if parts[0] in ("train", "valid", "test") else parts
        return "_".join(inner if self.config.collection or len(inner) == 1 else inner[1:])

    def _pseudonyms(self) -> dict[str, str]:
        """What each person is called: as the private map or a manifest says; else by the first of her volumes."""
        called = {row["person"]: row["pseudonym"] for row in self.private.values()}
        for manifest in self._manifests():
            for source in self.sources:
                if source.key in manifest.sources and not self.config.overwrite:
                    before = manifest.sources[source.key][0]["subject"]
                    if called.setdefault(source.subject, before) != before:
                        raise DataError(
                            f"{manifest.path} and --private_map call a person differently; prepare the collection anew with "
                            "--overwrite, so that nobody is in two splits."
                        )
        for source in self.sources:  # sorted by key
            called.setdefault(source.subject, f"p{source.key}")
        return called

    def _split(self, person: str) -> str:
        train, valid, _ = self.config.shares
        draw = hash_of(person, "split") * sum(self.config.shares)
        return "train" if draw < train else "valid" if draw < train + valid else "test"

    # ---- files

    def _manifests(self) -> list[Manifest]:
        return [*self.volumes.values(), *self.pictures.values()]

    def _volumes(self, collection: str) -> Manifest:
        path = Path(self.config.data_path) / collection / NAME
        there = path.parent.is_dir() and any(not one.name.startswith(".") for one in path.parent.iterdir())
        if there and not path.is_file() and not _settings_file(path).is_file():
            raise DataError(f"{path.parent} holds files that were not prepared here; choose another --collection.")
        return self._opened(Manifest(path, COLUMNS), lambda row: [path.parent / row["file"]])

    def _pictures(self, collection: str) -> Manifest:
        root = Path(self.config.image_path)
        path = root / f"{collection or 'pictures'}.{NAME}"

        def files(row: dict) -> Iterator[Path]:
            folder, case = picture_folder(root, row["split"], collection), row["case"]
            own = re.compile(re.escape(case) + r"(_\d+)?\.png")
            return (path for path in folder.glob(f"{glob.escape(case)}*.png") if own.fullmatch(path.name))

        return self._opened(Manifest(path, PICTURE_COLUMNS), files)

    def _opened(self, manifest: Manifest, files: Callable) -> Manifest:
        """The manifest, if it may be added to; `files` are those of a row."""
        if manifest.sources and not self.config.overwrite:
            _refuse_other_settings(self.config, _settings_file(manifest.path))
        self.opened.append((manifest, files))
        return manifest

    def _volume_labels(self) -> dict[str, tuple[str, str, str]]:
        """Label, person and split by path."""
        labels = {source.key: source.label for source in self.sources}
        found: dict[str, tuple[str, str, str]] = {}
        for collection, manifest in self.volumes.items():
            for key, rows in manifest.sources.items():
                found |= self._labels_of(collection, rows, labels.get(key, ""))
        return found

    @staticmethod
    def _labels_of(collection: str, rows: list[dict], label: str) -> dict[str, tuple[str, str, str]]:
        return {f"{collection}/{row['file']}".lstrip("/"): (label, row["subject"], row["split"]) for row in rows}

    def _picture_labels(self) -> dict[str, tuple[str, str, str]]:
        root, of_picture = Path(self.config.image_path), {}
        for source in self.sources:
            place = self.places[source.key]
            if source.is_picture and source.key in self.pictures[place.collection].sources:
                path = picture_folder(root, place.split, place.collection) / f"{place.case}.png"
                of_picture[path.relative_to(root).as_posix()] = (source.label, place.subject, place.split)
        return of_picture


def _settings(config) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items() if name in ALIKE}


def _settings_file(manifest: Path) -> Path:
    return manifest.with_name(manifest.name.replace(NAME, "settings.yaml"))


def _refuse_other_settings(config, path: Path) -> None:
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        before = None
    if not isinstance(before, dict):
        raise DataError(f"{path} cannot be read; prepare the collection anew with --overwrite.")
    now = _settings(config)
    different = [f"{name} was {before.get(name)}, is {value}" for name, value in now.items() if before.get(name) != value]
    if different:
        raise DataError(
            f"{path.parent} was prepared with other constants ({'; '.join(different)}); choose another --collection, or "
            "--overwrite to prepare it anew."
        )


def _clear(folder: Path) -> None:
    """Removes what a worker began and nobody took down."""
    for left in [*folder.glob(".*.tmp"), *folder.glob("*/*/.*.png.tmp")]:
        left.unlink(missing_ok=True)
