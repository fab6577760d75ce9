"""What a file is called where nobody may be recognised, and whose it is: digests of contents, names of folders."""

import hashlib
import os
from pathlib import Path, PurePosixPath

from .files import IMAGE_ENDINGS, VOLUME_ENDINGS

ARCHIVES = (".npz", ".h5", ".hdf5")
PIECES, PIECE = 16, 4096  # of a file, whose digest tells it from others


def subject_by_name(name: str) -> str:
    """Who a file is of, by its path: whom `person_by_name` finds there; else it is a subject of its own."""
    return person_by_name(name) or stem_of(name)


def person_by_name(name: str) -> str:
    """Who a file is of: BIDS's `sub-…` in the name of a folder or its own; a folder with a number, whose name begins it; or "".

    Without a number a folder is a collection: ct_train/ct_train_1001_image.nii.gz.
    """
    path = PurePosixPath(name)
    for part in (*path.parts[:-1], stem_of(path.name)):
        if part.startswith("sub-"):
            return part.partition("_")[0]
    for parent in reversed(path.parts[:-1]):
        if path.name.lower().startswith(parent.lower()) and any(character.isdigit() for character in parent):
            return parent
    return ""


def key_of(files: tuple[Path, ...], whole: bool = False) -> str:
    """A digest of files by evenly spread pieces of them, or of all that is in them."""
    digest = hashlib.blake2b(digest_size=6)
    for path in files:
        size = os.path.getsize(path)
        digest.update(size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            if whole or size <= PIECES * PIECE:
                while piece := file.read(2**20):
                    digest.update(piece)
                continue
            for number in range(PIECES):
                file.seek(number * (size - PIECE) // (PIECES - 1))
                digest.update(file.read(PIECE))
    return digest.hexdigest()


def digest_of(words) -> str:
    """Of several texts that are long and drawn at random, such as DICOM UIDs; a digest of a name could be guessed."""
    return hashlib.blake2b("\n".join(words).encode(), digest_size=6).hexdigest()


def stem_of(name: str) -> str:
    """The path without its ending."""
    lower = name.lower()
    ending = next((e for e in sorted((*VOLUME_ENDINGS, *ARCHIVES, *IMAGE_ENDINGS), key=len) if lower.endswith(e)), "")
    ending = ".nii.gz" if lower.endswith(".nii.gz") else ending
    return name[: len(name) - len(ending)] if ending else name
