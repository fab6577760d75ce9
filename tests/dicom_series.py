"""Writes volumes as DICOM series, as scanners export them: one file a slice, with its place in the patient."""

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from datasets.geometry import spacing_of


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    *,
    patient: str = "DOE^JANE",
    number: str = "",
    series: str = "",
    slope: float = 1,
    intercept: float = 0,
    modality: str = "CT",
    order=None,
    name: str = "IM{:04d}",
    **tags,
) -> None:
    """volume (H, W, C) int16 or uint16; affine: (row, column, slice) → LPS mm. order: in which slices get their file names."""
    folder.mkdir(parents=True, exist_ok=True)
    # made of the content, so that what is drawn by them is the same in every run
    seed = [hashlib.sha256(volume.tobytes()).hexdigest(), patient, number, name]
    series, study = series or generate_uid(entropy_srcs=[*seed, "series"]), generate_uid(entropy_srcs=[*seed, "study"])
    spacing = spacing_of(affine)
    order = range(volume.shape[2]) if order is None else order
    for place, slice_ in enumerate(order):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*seed, str(place)])
        header = FileDataset(str(folder / name.format(place)), {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        header.SeriesInstanceUID, header.StudyInstanceUID = series, study
        header.PatientName, header.PatientID = patient, number or patient
        header.Modality, header.InstanceNumber = modality, place + 1
        header.Rows, header.Columns = volume.shape[:2]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelRepresentation = int(volume.dtype.kind == "i")
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        header.ImagePositionPatient = [float(f"{x:.8g}") for x in (affine @ [0, 0, slice_, 1])[:3]]
        columns, rows = affine[:3, 1] / spacing[1], affine[:3, 0] / spacing[0]
        header.ImageOrientationPatient = [float(f"{x:.10f}") for x in (*columns, *rows)]
        header.PixelSpacing = [float(f"{spacing[0]:.8g}"), float(f"{spacing[1]:.8g}")]
        header.SliceThickness = float(f"{spacing[2]:.8g}")
        for tag, value in tags.items():
            setattr(header, tag, value)
        header.PixelData = np.ascontiguousarray(volume[:, :, slice_]).tobytes()
        header.save_as(folder / name.format(place), enforce_file_format=True)
