"""Volumes of files as `encode_volumes` takes them, by what this package installs: readers of the plain formats."""

from pathlib import Path

import numpy as np

from .datasets.errors import DataError
from .datasets.files import VOLUME_ENDINGS
from .datasets.reading import open_hung_volume


def read_volume(path: str | Path) -> np.ndarray:
    """(N, H, W): the volume of an NPY (slices last), NIfTI, MHA, MHD or NRRD file, turned as for training.

    Raises `DataError` for other files, and for those that cannot be read.
    """
    if not str(path).lower().endswith(VOLUME_ENDINGS):
        raise DataError(
            f"{path} is no NPY, NIfTI, MHA, MHD or NRRD file; read it by a library of its format, and give its array with the "
            "slices first, or by the read_volume of hubconf.py in the checkout."
        )
    return np.moveaxis(open_hung_volume(Path(path)), 2, 0)
