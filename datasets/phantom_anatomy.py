"""The parts of a phantom: which organs each collection has, how their labels and their texture are drawn.

Coordinates are those of the picture, -1 … 1 along its height (y, downwards) and width (x), and -1 … 1 along the body
(z) over the slices of a volume. Everything is drawn in float32 on whole arrays.
"""

from dataclasses import dataclass

import numpy as np

from .draws import uniform


@dataclass(frozen=True)
class Organ:
    """An ellipsoid: its centre and radii (y, x, z), its brightness in 0 … 1, and the organ (by name) that contains it."""

    name: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    brightness: float
    inside: str = ""


@dataclass(frozen=True)
class Anatomy:
    """A collection: its organs (class c of a label map is organ c - 1; the lesion comes last), values and variants."""

    organs: tuple[Organ, ...]
    textured: tuple[str, ...]  # the organs whose texture tells the two variants apart; lesions lie in the first
    variants: tuple[str, str]
    dtype: type
    low: int  # the integer that brightness 0 becomes
    high: int  # the integer that brightness 1 becomes

    @property
    def lesion(self) -> int:
        """The class of lesions in a label map."""
        return len(self.organs) + 1

    def organ(self, name: str) -> int:
        """The class of an organ in a label map."""
        return [organ.name for organ in self.organs].index(name) + 1


ANATOMIES = {
    "Phantom_Head": Anatomy(
        (
            Organ("scalp", (0, 0, 0), (0.86, 0.76, 1.3), 0.75),
            Organ("skull", (0, 0, 0), (0.79, 0.69, 1.2), 0.12, "scalp"),
            Organ("brain", (0, 0, 0), (0.72, 0.62, 1.1), 0.5, "skull"),
            Organ("ventricle", (-0.05, -0.12, 0), (0.2, 0.08, 0.6), 0.22, "brain"),
            Organ("ventricle_right", (-0.05, 0.12, 0), (0.2, 0.08, 0.6), 0.22, "brain"),
        ),
        ("brain",), ("upright", "level"), np.uint8, 0, 255,
    ),
    "Phantom_Chest": Anatomy(
        (
            Organ("thorax", (0, 0, 0), (0.72, 0.9, 1.6), 0.62),
            Organ("lung_right", (-0.02, -0.42, 0), (0.56, 0.38, 1.2), 0.3, "thorax"),
            Organ("lung_left", (-0.02, 0.44, 0), (0.54, 0.36, 1.2), 0.3, "thorax"),
            Organ("heart", (0.12, 0.1, 0.2), (0.26, 0.26, 0.7), 0.72),
            Organ("spine", (0.52, 0, 0), (0.13, 0.13, 2.0), 0.95),
        ),
        ("lung_right", "lung_left"), ("upright", "level"), np.int16, -1000, 600,
    ),
    "Phantom_Abdomen": Anatomy(
        (
            Organ("trunk", (0, 0, 0), (0.72, 0.9, 1.6), 0.35),
            Organ("liver", (-0.08, -0.28, 0), (0.52, 0.5, 1.0), 0.6, "trunk"),
            Organ("spleen", (0.05, 0.6, 0), (0.3, 0.18, 0.8), 0.66, "trunk"),
            Organ("kidney", (0.3, 0.36, 0.1), (0.16, 0.13, 0.6), 0.78, "trunk"),
            Organ("spine", (0.46, 0.05, 0), (0.14, 0.14, 2.0), 0.95, "trunk"),
        ),
        ("liver",), ("upright", "level"), np.int16, -200, 500,
    ),
    "Phantom_Heart": Anatomy(
        (
            Organ("chest_wall", (0, 0, 0), (0.86, 0.9, 1.6), 0.3),
            Organ("myocardium", (0, 0.06, 0), (0.66, 0.62, 1.1), 0.5, "chest_wall"),
            Organ("left_ventricle", (0.08, 0.2, 0.05), (0.2, 0.18, 0.7), 0.82, "myocardium"),
            Organ("right_ventricle", (-0.1, -0.3, 0), (0.24, 0.13, 0.7), 0.74, "myocardium"),
            Organ("aorta", (-0.66, -0.3, 0), (0.12, 0.12, 2.0), 0.8, "chest_wall"),
        ),
        ("myocardium",), ("upright", "level"), np.uint8, 0, 255,
    ),
}  # fmt: skip

# the classes 1, 2, … of labelled samples, which mean the same in every anatomy, and the organs (by name) that make them
SHARED_CLASSES = {
    "brain": ("brain",),
    "ventricle": ("ventricle", "ventricle_right"),
    "lung": ("lung_right", "lung_left"),
    "heart": ("heart",),
    "spine": ("spine",),
    "liver": ("liver",),
    "kidney": ("kidney",),
    "myocardium": ("myocardium",),
    "left_ventricle": ("left_ventricle",),
    "right_ventricle": ("right_ventricle",),
}


def shared_classes(anatomy: Anatomy, labels: np.ndarray) -> np.ndarray:
    """A phantom's label map, uint8, in the classes of SHARED_CLASSES: a lesion belongs to its organ, other organs are 0."""
    names = ["", *(organ.name for organ in anatomy.organs), anatomy.textured[0]]
    of_name = {organ: number for number, organs in enumerate(SHARED_CLASSES.values(), 1) for organ in organs}
    return np.array([of_name.get(name, 0) for name in names], np.uint8)[labels]


def grid(shape: tuple[int, int, int], z_range: tuple[float, float]) -> list[np.ndarray]:
    """Coordinates y (H, 1, 1), x (1, W, 1), z (1, 1, C) of the centres of H × W × C voxels, float32."""
    height, width, depth = shape
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) * (2 / n) - 1 for n in (height, width))
    low, high = z_range
    z = (np.arange(depth, dtype=np.float32) + 0.5) * ((high - low) / depth) + low
    return [y[:, None, None], x[None, :, None], z[None, None, :].astype(np.float32)]


def pose(coordinates: list[np.ndarray], key: np.ndarray) -> list[np.ndarray]:
    """Where each voxel lies in the body: (y, x, z) as (H, W, C), after a random shift, turn, size and smooth deformation."""
    y, x, z = coordinates
    u = _around_zero(uniform(key, 12))
    angle, size = 0.4 * u[0], np.exp(0.16 * u[1])
    y, x = y - 0.14 * u[2], x - 0.14 * u[3]
    y, x = (
        (np.cos(angle) * y - np.sin(angle) * x) * (size * np.exp(0.1 * u[4])),
        (np.sin(angle) * y + np.cos(angle) * x) * (size * np.exp(-0.1 * u[4])),
    )
    shift = 0.06 * np.sin(3 * x + np.pi * u[5]) * np.cos(1.5 * z + np.pi * u[6])
    x = x + 0.06 * np.sin(3 * y + np.pi * u[7]) * np.cos(1.5 * z + np.pi * u[8])
    return [(y + shift).astype(np.float32), x.astype(np.float32), z + np.float32(0.1 * u[9])]


def paint_labels(anatomy: Anatomy, coordinates: list[np.ndarray], key: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8: 0 outside the body, then the class of the innermost organ; every organ is moved and sized a little."""
    y, x, z = coordinates
    labels = np.zeros(y.shape, np.uint8)
    names = {organ.name: number for number, organ in enumerate(anatomy.organs, 1)}
    for number, organ in enumerate(anatomy.organs, 1):
        u = _around_zero(uniform(key ^ np.uint64(number), 7)).astype(np.float32)
        free = (organ.inside and organ.inside != anatomy.organs[0].name) or number > 3
        radii = np.array(organ.radii, np.float32) * np.exp((0.15 if free else 0.04) * u[:3])
        centre = np.array(organ.centre, np.float32) + (0.05 if free else 0.015) * u[3:6]
        inside = sum(((c - m) / r) ** 2 for c, m, r in zip((y, x, z), centre, radii)) < 1
        if organ.inside:
            inside &= labels == names[organ.inside]
        labels[inside] = number
    return labels


def paint_lesions(anatomy: Anatomy, labels: np.ndarray, coordinates: list[np.ndarray], key: np.ndarray) -> None:
    """One to three small ellipsoids of the lesion's class, in place, each around a random voxel of the first textured organ."""
    organ = anatomy.organ(anatomy.textured[0])
    places = np.flatnonzero(labels == organ)
    u = uniform(key, 13)
    for number in range(1 + int(3 * u[12]) if len(places) else 0):
        place, *radii = u[4 * number : 4 * number + 4]
        centre = [np.float32(c.ravel()[places[int(place * len(places))]] if c.size == labels.size else 0) for c in coordinates]
        radii = (0.05 + 0.07 * np.array(radii)) * (1, 1, 4)
        inside = sum(((c - m) / np.float32(r)) ** 2 for c, m, r in zip(coordinates, centre, radii)) < 1
        labels[inside & (labels == organ)] = anatomy.lesion


def texture(shape: tuple[int, int, int], upright: bool, key: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """(H, W, C) float32 of mean 0 and deviation 1: a random field of stripes, nearly upright or nearly level.

    Both have wavelengths, phases and slants drawn alike and, as Gaussian fields, values distributed alike.
    """
    u = uniform(key, 2)
    ky = np.fft.fftfreq(shape[0], 1 / shape[0]).astype(np.float32)[:, None, None]
    kx = np.fft.fftfreq(shape[1], 1 / shape[1]).astype(np.float32)[None, :, None]
    kz = np.fft.rfftfreq(shape[2], 1 / shape[2]).astype(np.float32)[None, None, :]
    radius = np.sqrt(ky**2 + kx**2)
    frequency = 6.0 * np.exp(0.25 * (2 * u[0] - 1))  # waves across the picture
    direction = 0.25 * (2 * u[1] - 1) + (0.0 if upright else np.pi / 2)
    along = np.abs(ky * np.float32(np.sin(direction)) + kx * np.float32(np.cos(direction)))
    weight = np.exp(-(((radius - frequency) / (0.25 * frequency)) ** 2))
    weight = weight * np.exp(-(((along / np.maximum(radius, 1) - 1) / 0.05) ** 2)) * np.exp(-((kz / 2.0) ** 2))
    spectrum = noise.standard_normal((*weight.shape, 2), dtype=np.float32).view(np.complex64)[..., 0] * weight
    field = np.fft.irfftn(spectrum, shape, axes=(0, 1, 2))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _around_zero(u: np.ndarray) -> np.ndarray:
    return 2 * u - 1
