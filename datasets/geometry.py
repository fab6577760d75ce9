"""Where voxels lie in the patient: affine matrices from array indices to millimetres, in DICOM's axes (LPS).

x grows to the patient's left, y to the back, z to the head. An affine (4, 4) float64 takes (i, j, k, 1), the indices of an
array's axes, to (x, y, z, 1). Columns need not be orthogonal: with a tilted gantry they are not.
"""

from collections.abc import Sequence

import numpy as np

ALIKE = 0.01  # spacings that differ by less are equal
LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # towards which an axis goes, against x, y, z and along them
# rows and columns of a slice across z, y or x: to the back and the left; to the feet and the left; to the feet and the back
HUNG = {2: ((1, 1), (0, 1)), 1: ((2, -1), (0, 1)), 0: ((2, -1), (1, 1))}


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) millimetres from a voxel to the next, along each axis of the array."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def orientation_of(affine: np.ndarray) -> str:
    """Three letters, such as "PLS": to the back, the left, the head with the first, second, third index."""
    return "".join(LETTERS[axis][int(affine[axis, of] > 0)] for of, axis in enumerate(_main_axes(affine)))


def slice_axis(affine: np.ndarray, shape: Sequence[int]) -> int:
    """Which axis of an array runs from slice to slice: the one whose spacing is unlike the other two; else the last one.

    Pixels of a slice are square in nearly every acquisition; what was made isotropic has no acquisition's axis any more.
    """
    spacing = spacing_of(affine)
    for axis in (2, 1, 0):
        one, two = np.delete(spacing, axis)
        unlike = min(abs(spacing[axis] - other) / other for other in (one, two))
        if abs(one - two) <= ALIKE * one and unlike > ALIKE:
            return axis
    return 2


def hang(
    affine: np.ndarray, shape: Sequence[int], slices: int
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], np.ndarray]:
    """How an array becomes rows, columns, slices as a radiologist sees them: (order of axes, which are flipped, new affine).

    Axial slices have the front above and the patient's right on the left, and come from the feet; coronal and sagittal
    ones have the head above. Oblique ones are hung by their nearest axes.
    """
    across = _main_axes(affine)
    wanted = HUNG[across[slices]]
    axes = [across.index(axis) for axis, _ in wanted] + [slices]
    flipped = [np.sign(affine[axis, of]) != sign for of, (axis, sign) in zip(axes, (*wanted, (across[slices], 1)))]
    turned = affine[:, [*axes, 3]].copy()
    for new, of in enumerate(axes):
        if flipped[new]:
            turned[:, 3] += turned[:, new] * (shape[of] - 1)
            turned[:, new] *= -1
    return tuple(axes), tuple(map(bool, flipped)), turned


def turn_of(
    affine: np.ndarray | None, shape: Sequence[int], slices: int | None
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], np.ndarray | None]:
    """`hang` by the slices' axis that a file tells, else the likeliest; where nothing is known, slices last, none flipped."""
    if affine is None:
        last = 2 if slices is None else slices
        return (*(axis for axis in range(3) if axis != last), last), (False, False, False), None
    return hang(affine, shape, slice_axis(affine, shape) if slices is None else slices)


def as_hung(voxels: np.ndarray, axes: tuple[int, int, int], flipped: tuple[bool, bool, bool]) -> np.ndarray:
    """An array in another order of axes, some of which run backwards; a view of it."""
    return voxels.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]


def cropped(affine: np.ndarray, first: Sequence[int]) -> np.ndarray:
    """The affine of what begins at the indices `first` of an array."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.asarray(first, np.float64)
    return moved


def rescaled(affine: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """The affine of an array whose voxels are `steps` times as large along each axis, and whose outer borders are the same."""
    steps = np.asarray(steps, np.float64)
    scaled = cropped(affine, (steps - 1) / 2)
    scaled[:3, :3] *= steps
    return scaled


def _main_axes(affine: np.ndarray) -> list[int]:
    """For each axis of the array the patient's axis that it runs along; three different ones."""
    directions = np.abs(affine[:3, :3] / np.maximum(spacing_of(affine), 1e-12))
    found = [-1, -1, -1]
    for _ in range(3):
        axis, of = np.unravel_index(np.argmax(directions), (3, 3))
        found[of] = int(axis)
        directions[axis], directions[:, of] = -1, -1
    return found


# ---- one a format


def _affine(directions: np.ndarray, origin: np.ndarray, what: str) -> np.ndarray:
    """directions (3, 3): its columns are the steps in mm along the first, second and third index."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions, origin
    if not np.isfinite(affine).all() or not _spans(affine[:3, :3]):
        raise ValueError(f"its {what} span no space")
    return affine


def _spans(directions: np.ndarray) -> bool:
    """Whether three columns point into three directions, however short they are."""
    lengths = np.linalg.norm(directions, axis=0)
    return bool((lengths > 0).all()) and abs(np.linalg.det(directions / lengths)) > 1e-6


def nifti_affine(header: bytes, order: str, new: bool) -> np.ndarray | None:
    """Of a NIfTI-1 or -2 header: the sform, else the qform, else the spacings; NIfTI's axes point right, front and up."""
    real = order + ("f8" if new else "f4")
    at = lambda kind, place, count: np.frombuffer(header, kind, count, place).astype(np.float64)  # noqa: E731
    qform, sform = np.frombuffer(header, order + ("i4" if new else "i2"), 2, 344 if new else 252)
    pixdim = at(real, 104 if new else 76, 8)
    rows = at(real, 400 if new else 280, 12).reshape(3, 4)
    if sform > 0 and (_spans(rows[:, :3]) or qform <= 0):
        pass
    elif qform > 0:
        rows = _from_quaternion(pixdim, at(real, 352 if new else 256, 6))
    else:
        rows = np.hstack([np.diag(np.where(pixdim[1:4] > 0, pixdim[1:4], 1.0)), np.zeros((3, 1))])
    unit = {1: 1000.0, 3: 0.001}.get(header[500 if new else 123] & 7, 1.0)  # metres, micrometres
    signs = unit * np.array([-1.0, -1.0, 1.0])
    return _affine(np.diag(signs) @ rows[:, :3], signs * rows[:, 3], "axes")


def _from_quaternion(pixdim: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(3, 4), method 2 of the NIfTI standard. numbers: b, c, d and the offset."""
    b, c, d = numbers[:3]
    a = 1.0 - (b * b + c * c + d * d)
    a = 0.0 if a < 1e-7 else np.sqrt(a)  # what rounding left of it at a half turn
    length = np.sqrt(a * a + b * b + c * c + d * d)
    a, b, c, d = np.array([a, b, c, d]) / length
    turn = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    steps = pixdim[1:4] * [1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0]
    return np.hstack([turn * steps, numbers[3:, None]])


def meta_image_affine(fields: dict[str, str]) -> np.ndarray | None:
    """Of the fields of a MetaImage header; a row of TransformMatrix is the direction of an index."""
    numbers = lambda *names: next((np.array(fields[n].split(), np.float64) for n in names if n in fields), None)  # noqa: E731
    spacing = numbers("ElementSpacing", "ElementSize")
    if spacing is None:
        return None
    count = len(spacing)
    matrix, offset = numbers("TransformMatrix", "Rotation", "Orientation"), numbers("Offset", "Position", "Origin")
    directions = np.eye(count) if matrix is None else matrix.reshape(count, count).T
    origin = np.zeros(count) if offset is None else offset
    return _affine(directions[:3, :3] * spacing[:3], origin[:3], "TransformMatrix and ElementSpacing")


def nrrd_affine(fields: dict[str, str]) -> np.ndarray | None:
    """Of the fields of an NRRD header; `space` says which way its axes point."""
    if "space directions" not in fields:
        if "spacings" not in fields:
            return None
        steps = np.array(fields["spacings"].split()[:3], np.float64)
        return _affine(np.diag(steps), np.zeros(3), "spacings")
    vectors = [word for word in fields["space directions"].replace(") (", ")|(").replace(" none", "|none").split("|")]
    steps = np.array([_vector(word) for word in vectors if "none" not in word][:3]).T
    origin = np.array(_vector(fields["space origin"])) if "space origin" in fields else np.zeros(3)
    signs = _lps_signs(fields.get("space", "left-posterior-superior").lower())
    return _affine(signs[:, None] * steps, signs * origin, "space directions")


def _vector(text: str) -> list[float]:
    return [float(number) for number in text.strip().strip("()").split(",")]


def _lps_signs(space: str) -> np.ndarray:
    names = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
    words = names.get(space.removesuffix("t"), space).removesuffix("-time").split("-")
    if len(words) != 3:
        return np.ones(3)  # scanner's or no axes
    return np.array([1.0 if word in ("left", "posterior", "superior") else -1.0 for word in words])
