"""Files for `fuzz.py`, and for tests: whole ones of every kind that is read here, damaged ones, and ones made to do harm."""

import gzip
import io
import json
import os
import pickle
import random
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
WEIGHTS = ("pth", "old.pth", "safetensors")
KINDS = (
    "npy",
    "nii",
    "nii.gz",
    "mha",
    "packed.mha",
    "mhd",
    "nrrd",
    "packed.nrrd",
    "dcm",
    "rle.dcm",
    "j2k.dcm",
    "png",
    "16.png",
    "jpg",
    "tif",
    "packed.tif",
    "bmp",
)
ARCHIVES = ("npz", "h5", "pages.tif")  # which prepare_data.py alone reads
EXTREMES = [struct.pack(f, v) for f, v in [
    ("<b", -1), ("<B", 0),
    ("<h", -1), ("<h", 32767), (">h", 32767), ("<i", -1), ("<i", 2**31 - 1), (">i", 2**31 - 1), ("<i", 0),
    ("<q", -1), ("<q", 2**63 - 1), (">q", 2**63 - 1), ("<q", 2**40), ("<f", float("nan")), ("<f", 1e38), ("<d", float("inf")),
]]  # fmt: skip
NUMBERS = [b"0", b"-1", b"1000000000000", b"99999999999999999999999999", b"1e400", b"nan", b"'x'", b"", b"()", b"[" * 200]


# ---- valid files


def valid_files(weights: bool = True) -> dict[str, bytes]:
    """One small whole file of each kind, as bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volumes(folder)
        write_dicom(folder)
        write_pictures(folder)
        write_archives(folder)
        if weights:
            write_weight_files(folder)
        kinds = KINDS + ARCHIVES + (WEIGHTS if weights else ())
        return {kind: (folder / f"a.{kind}").read_bytes() for kind in kinds}


def write_volumes(folder: Path) -> None:
    """a.npy, a.nii, … in `folder`, of 6 x 7 x 5 voxels."""
    import SimpleITK

    volume = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
    np.save(folder / "a.npy", volume)
    image = SimpleITK.GetImageFromArray(np.moveaxis(volume, -1, 0))
    for kind in ("nii", "nii.gz", "mha", "mhd", "nrrd"):
        SimpleITK.WriteImage(image, str(folder / f"a.{kind}"))
    for kind in ("packed.mha", "packed.nrrd"):
        SimpleITK.WriteImage(image, str(folder / f"a.{kind}"), useCompression=True)


def write_dicom(folder: Path) -> None:
    """a.dcm (plain), a.rle.dcm, a.j2k.dcm in `folder`, of 24 x 20 pixels; they lie somewhere in a patient."""
    import pydicom
    import SimpleITK
    from pydicom.uid import RLELossless

    from datasets.dicom import same_locale

    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (1, 24, 20)).astype(np.int16))
    header = {"0020|0032": "1\\2\\3", "0020|0037": "1\\0\\0\\0\\1\\0", "0028|0030": "1\\1", "0028|1052": "0", "0028|1053": "1"}
    for key, text in header.items():
        image.SetMetaData(key, text)
    with same_locale():
        SimpleITK.WriteImage(image, str(folder / "a.dcm"))
        SimpleITK.WriteImage(image, str(folder / "a.j2k.dcm"), useCompression=True)
    header = pydicom.dcmread(folder / "a.dcm")
    header.compress(RLELossless)
    header.save_as(folder / "a.rle.dcm")


def write_pictures(folder: Path) -> None:
    """a.png, a.jpg, … in `folder`, of 24 x 20 pixels."""
    rng = np.random.default_rng(0)
    grey, deep = rng.integers(0, 256, (24, 20)).astype(np.uint8), rng.integers(0, 65536, (24, 20)).astype(np.uint16)
    for kind in ("png", "jpg", "tif", "bmp"):
        Image.fromarray(grey).save(folder / f"a.{kind}")
    Image.fromarray(deep).save(folder / "a.16.png")
    Image.fromarray(deep).save(folder / "a.packed.tif", compression="tiff_deflate")


def write_archives(folder: Path) -> None:
    """a.npz, a.h5, a.pages.tif in `folder`, of 6 x 7 x 5 voxels; packed, and with an array that is no volume."""
    import h5py

    volume = np.random.default_rng(0).integers(0, 1000, (6, 7, 5)).astype(np.uint16)
    np.savez_compressed(folder / "a.npz", image=volume, spacing=np.ones(3))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("scan/image", data=volume, chunks=(3, 7, 5), compression="gzip")
        file["spacing"] = np.ones(3)
        file.attrs["unit"] = "mm"
    first, *others = (Image.fromarray(np.ascontiguousarray(volume[:, :, i])) for i in range(5))
    first.save(folder / "a.pages.tif", save_all=True, append_images=others, description="ImageJ=1\nunit=mm\nspacing=2")


def write_weight_files(folder: Path) -> None:
    """a.pth, a.old.pth, a.safetensors in `folder`: tensors by names of a ResNet, too few to be one."""
    import safetensors.torch
    import torch

    from engine.weights import write_weights

    state = {
        "conv1.weight": torch.ones(4, 1, 3, 3),
        "bn1.num_batches_tracked": torch.tensor(3),
        "layer1.0.conv1.weight": torch.ones(4),
    }
    about = {"stage": "image", "method": "swav", "config": {"arch": "resnet18"}}
    write_weights(folder / "a.pth", state, about, flat=True)
    torch.save(state, folder / "a.old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "a.safetensors")


# ---- damage


def damaged(kind: str, whole: bytes, rng: random.Random) -> bytes:
    """The file with one to three faults; inside its packed parts, too, whose check sums are then right again."""
    inside = rng.random() < 0.5
    if kind == "nii.gz" and inside:
        return gzip.compress(_faulty(gzip.decompress(whole), rng), 1)
    if kind.endswith("png") and inside:
        return _faulty_png(whole, rng)
    if kind in ("pth", "npz") and inside:
        return _faulty_archive(whole, rng)
    return _faulty(whole, rng)


def _faulty(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        data = rng.choice((_flipped, _cut, _overwritten, _spliced, _reworded))(bytearray(data), rng)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Somewhere in the file; half of the time in its header."""
    return rng.randrange(min(len(data), 400) if rng.random() < 0.5 else len(data)) if data else 0


def _flipped(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.randint(1, 8) if data else 0):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else data[: max(0, len(data) - rng.randint(1, 20))]


def _overwritten(data: bytearray, rng: random.Random) -> bytearray:
    extreme, place = rng.choice(EXTREMES), _place(data, rng)
    place -= place % 2  # fields lie at even bytes
    data[place : place + len(extreme)] = extreme
    return data


def _spliced(data: bytearray, rng: random.Random) -> bytearray:
    first, last = sorted((_place(data, rng), _place(data, rng)))
    place = _place(data, rng)
    return data[:place] + data[first:last] + data[place + rng.choice((0, last - first)) :]


def _reworded(data: bytearray, rng: random.Random) -> bytearray:
    """A number in a text header becomes another one, or none."""
    places = [i for i in range(min(len(data), 2000)) if chr(data[i]).isdigit() and not chr(data[i - 1]).isdigit()]
    if places:
        first = last = rng.choice(places)
        while last < len(data) and chr(data[last]).isdigit():
            last += 1
        data[first:last] = rng.choice(NUMBERS)
    return data


def _faulty_png(whole: bytes, rng: random.Random) -> bytes:
    out, place = whole[:8], 8
    hit = rng.randrange(3)
    for number in range(3):
        length = int.from_bytes(whole[place : place + 4])
        kind, content = whole[place + 4 : place + 8], whole[place + 8 : place + 8 + length]
        if number == hit:
            content = _faulty(zlib.decompress(content), rng) if kind == b"IDAT" else _faulty(content, rng)
            content = zlib.compress(content) if kind == b"IDAT" else content
        out += _chunk(kind, content)
        place += 12 + length
    return out


def _faulty_archive(whole: bytes, rng: random.Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w") as new:
        hit = rng.choice(old.namelist()[:4])
        for name in old.namelist():
            new.writestr(name, _faulty(old.read(name), rng) if name == hit else old.read(name))
    return made.getvalue()


# ---- files made to do harm


class _Runs:
    def __reduce__(self):
        return os.system, ("touch harm",)


def hostile_files() -> dict[str, bytes]:
    """Small files that promise much, name others, or carry code, by name."""
    return hostile_volumes() | hostile_pictures() | hostile_archives() | hostile_weights()


def hostile_volumes() -> dict[str, bytes]:
    nifti = bytearray(gzip.decompress(valid_files(weights=False)["nii.gz"]))
    nifti[40:56] = struct.pack("<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)
    meta = "ObjectType = Image\nNDims = 3\nDimSize = {}\nElementType = MET_SHORT\nElementDataFile = {}\n"
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nendian: little\ndata file: {}\n\n"
    return {
        "terabytes.nii": bytes(nifti),
        "terabytes.nii.gz": gzip.compress(bytes(nifti)),
        "bomb.nii.gz": _bomb(nifti),
        "code.npy": _npy("|O", "1, 1, 1") + pickle.dumps(_Runs()),
        "sparse.npy": _npy("|u1", "200000, 200000, 8"),
        "deflated.dcm": deflated_dicom(2**32),
        "items.npy": _npy("<f4", "10000, 10000, 10000"),
        "negative.npy": _npy("<f4", "-1, 1, 1") + bytes(64),
        "large.mha": meta.format("100000 100000 100000", "LOCAL").encode() + bytes(64),
        "root.mha": meta.format("4 4 4", "/etc/passwd").encode(),
        "above.mhd": meta.format("4 4 4", "../../../../etc/passwd").encode(),
        "root.nrrd": nrrd.format("/etc/passwd").encode(),
        "above.nrrd": nrrd.format("../../../../etc/passwd").encode(),
    }


def deflated_dicom(size: int) -> bytes:
    """A DICOM file whose header and pixels are one stream of `size` zeros, after a text that says so."""
    syntax = b"1.2.840.10008.1.2.1.99"
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(syntax)) + syntax
    pack = zlib.compressobj(9, wbits=-15)
    pieces = [pack.compress(bytes(min(2**26, size - first))) for first in range(0, size, 2**26)]
    return bytes(128) + b"DICM" + element + b"".join(pieces) + pack.flush()


def hostile_pictures() -> dict[str, bytes]:
    size = 14_000
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(size * (size + 1)), 1)), (b"IEND", b"")]
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(harm) (w) file closefile\nshowpage\n%%EOF\n"
    return {"megapixels.png": PNG + b"".join(_chunk(*chunk) for chunk in chunks), "program.png": program}


def hostile_archives() -> dict[str, bytes]:
    import h5py

    whole = np.zeros((4, 4, 4), np.uint8)
    virtual = h5py.VirtualLayout(whole.shape, "u1")
    virtual[:] = h5py.VirtualSource("a.h5", "image", whole.shape)
    contents = {
        "link.h5": lambda file: file.update({"image": h5py.ExternalLink("a.h5", "image")}),
        "outside.h5": lambda file: file.create_dataset("image", (4, 4, 4), "u1", external=[("/etc/passwd", 0, 64)]),
        "virtual.h5": lambda file: file.create_virtual_dataset("image", virtual),
        "terabytes.h5": lambda file: file.create_dataset("image", (10**4,) * 3, "u1", chunks=(100,) * 3),
        "gigabytes.h5": lambda file: file.create_dataset("image", (1024, 1024, 4096), "u1", chunks=(64,) * 3),
        "chunk.h5": lambda file: file.create_dataset("image", (1600,) * 3, "u1", chunks=(1600,) * 3, compression="gzip"),
    }
    made = {"bomb.npz": _packed_array(), "code.npz": _zip("image.npy", _npy("|O", "1, 1, 1") + pickle.dumps(_Runs()))}
    for name, fill in contents.items():
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            fill(file)
        made[name] = buffer.getvalue()
    return made


def hostile_weights() -> dict[str, bytes]:
    return {
        "code.pth": pickle.dumps(_Runs()),
        "bomb.pth": _packed_archive(),
        "length.safetensors": struct.pack("<Q", 2**60) + b"{}",
        "outside.safetensors": _safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    }


def _npy(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bomb(nifti: bytearray) -> bytes:
    """A NIfTI of four gigabytes of zeros, which it really holds."""
    nifti[40:56] = struct.pack("<8h", 3, 1024, 1024, 2048, 1, 1, 1, 1)
    pack = zlib.compressobj(9, wbits=31)
    return b"".join([pack.compress(bytes(nifti[:352])), *(pack.compress(bytes(2**26)) for _ in range(64)), pack.flush()])


def _zip(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


def _packed_array() -> bytes:
    """An NPZ of four gigabytes of zeros, which it really holds."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.npy", "w", force_zip64=True) as file:
        file.write(_npy("|u1", "1024, 1024, 4096"))
        for _ in range(64):
            file.write(bytes(2**26))
    return made.getvalue()


def _packed_archive() -> bytes:
    """Weights of 256 MB of zeros in 256 KB: torch packs nothing, but would unpack it."""
    import torch

    made = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(2**26)}, made)
    packed = io.BytesIO()
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed.getvalue()


def _safetensors(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)
