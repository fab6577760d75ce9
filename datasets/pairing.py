"""Which file is whose label, by names alone: by patterns that somebody gives, or by the customs of published data sets."""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from .errors import DataError
from .identity import stem_of

LABEL_MARK = re.compile(r"[_-](labels?|seg|segmentation|gt|masks?)$", re.IGNORECASE)  # at the end of a label's name
IMAGE_MARK = re.compile(r"[_-](image|img)$", re.IGNORECASE)
# folders of images, and those beside them that hold their labels
FOLDERS = {"images": ("labels", "masks", "segmentations"), "imagesTr": ("labelsTr",), "imagesTs": ("labelsTs",)}
CHANNELS = ("imagesTr", "imagesTs")  # whose files may end in the number of a channel, as nnU-Net's do
FIRST_CHANNEL, OTHER_CHANNEL = re.compile(r"_0000$"), re.compile(r"_000[1-9]$")
OF_TEST = "imagesTs"  # in which published sets keep images without their labels


def by_patterns(names: list[str], image_pattern: str, label_pattern: str) -> dict[str, str]:
    """The label's name, or "", for every image among the paths `names`.

    A pattern is the end of a path, `*` any text without a slash: what it stands for in the image's is put into the label's,
    and the folders above are the same. A file that fits the label's pattern is no image, unless both patterns are one.
    Raises `DataError` for patterns with different numbers of `*`.
    """
    if label_pattern and image_pattern.count("*") != label_pattern.count("*"):
        raise DataError(
            f"--image_pattern {image_pattern} and --label_pattern {label_pattern} have not as many *; each stands for the same "
            "text in both, as in *_image.nii.gz and *_label.nii.gz."
        )
    present, image, label = set(names), _compiled(image_pattern), _compiled(label_pattern)
    found = {}
    for name in names:
        match = image.fullmatch(name)
        if not match or (label_pattern not in ("", image_pattern) and label.fullmatch(name)):
            continue
        above, *stars = match.groups()
        words = label_pattern.split("*")
        expected = above + words[0] + "".join(star + word for star, word in zip(stars, words[1:]))
        found[name] = expected if label_pattern and expected in present else ""
    return found


def _compiled(pattern: str) -> re.Pattern:
    return re.compile("((?:.*/)?)" + "([^/]*)".join(map(re.escape, pattern.split("*"))))


def by_custom(names: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(the names of its labels for every image among the paths `names`, labels of no image).

    A label lies beside its image and has its name and a mark, as in x.nii.gz or x_image.nii.gz and x_seg.nii.gz; or in a
    folder labels beside the folder images, labelsTr beside imagesTr, with or without a mark. Of nnU-Net's channels the first
    is an image.
    """
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    labels: dict[str, list[str]] = defaultdict(list)  # by what an image's path may be, without its ending
    images: dict[str, str] = {}  # its folder of images, "" for none
    for name in names:
        kind, place = _place(name, folders)
        if kind == "label":
            for key in {stem_of(place), LABEL_MARK.sub("", stem_of(place))}:
                labels[key].append(name)
        elif kind == "image":
            images[name] = PurePosixPath(place).name
        elif LABEL_MARK.search(stem_of(name)):
            labels[LABEL_MARK.sub("", stem_of(name))].append(name)
        else:
            images[name] = ""
    stems = {stem_of(name) for name in images}
    found = {name: _labels_of(stem_of(name), folder, labels) for name, folder in images.items()}
    for name, folder in images.items():
        first = OTHER_CHANNEL.sub("_0000", stem_of(name))
        if folder in CHANNELS and first != stem_of(name) and first in stems and stem_of(name) not in labels:
            del found[name]
    taken = {label for of_image in found.values() for label in of_image}
    return found, sorted({label for of_key in labels.values() for label in of_key} - taken)


def _place(name: str, folders: set[str]) -> tuple[str, str]:
    """("image", its folder of images), ("label", where its image would be) or ("", "") by the folders that it lies in."""
    parts = PurePosixPath(name).parts
    for number in reversed(range(len(parts) - 1)):
        above = PurePosixPath(*parts[:number])
        for of_images, of_labels in FOLDERS.items():
            beside = [folder for folder in of_labels if (above / folder).as_posix() in folders]
            if parts[number] == of_images and (beside or of_images == OF_TEST):
                return "image", (above / of_images).as_posix()
            if parts[number] in beside and (above / of_images).as_posix() in folders:
                return "label", (above / of_images / PurePosixPath(*parts[number + 1 :])).as_posix()
    return "", ""


def _labels_of(stem: str, folder: str, labels: dict[str, list[str]]) -> list[str]:
    """Those of the likeliest name that has any."""
    plain = FIRST_CHANNEL.sub("", stem) if folder in CHANNELS else stem
    keys = dict.fromkeys([stem, plain, IMAGE_MARK.sub("", plain)])
    return next((labels[key] for key in keys if key in labels), [])


def is_of_test(name: str) -> bool:
    """Whether an image lies in the folder that published sets keep for tests, with labels or without."""
    return OF_TEST in PurePosixPath(name).parts[:-1]


def plain_name(name: str) -> str:
    """The path of an image without its ending, and without what only says that it is one, or the first of its channels."""
    plain = IMAGE_MARK.sub("", stem_of(name))
    of_channels = any(folder in CHANNELS for folder in PurePosixPath(name).parts[:-1])
    return FIRST_CHANNEL.sub("", plain) if of_channels else plain
