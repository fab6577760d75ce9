"""A folder of 500 small files with faults of every kind, each known; the rest is sound."""

import csv
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

SHAPE = (24, 24, 10)


def field(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """float32 in [0, 1]: a smooth random body on dark ground, neighbours in the plane more alike than those across it."""
    noise = rng.standard_normal(shape).astype(np.float32)
    for axis, times in [(0, 3), (1, 3), *([(2, 1)] if len(shape) > 2 else [])]:
        for _ in range(times):
            noise = (np.roll(noise, 1, axis) + noise + np.roll(noise, -1, axis)) / 3
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    body = np.clip(1.6 - 1.5 * np.hypot(rows, columns), 0, 1).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return np.clip((0.5 + noise / (5 * noise.std())) * body + 0.01 * rng.standard_normal(shape), 0, 1).astype(np.float32)


def ct(grey: np.ndarray) -> np.ndarray:
    return (grey * 2000 - 1000).astype(np.int16)


def save_nifti(path: Path, volume: np.ndarray, spacing: tuple[float, float, float]) -> None:
    image = SimpleITK.GetImageFromArray(np.moveaxis(volume, -1, 0))
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path))


class Planted:
    """`root`, and in `faults` the sets of files by kind of finding."""

    def __init__(self, root: Path, seed: int = 0):
        self.root, self.rng, self.faults = root, np.random.default_rng(seed), defaultdict(set)
        self.labels: list[list[str]] = []
        for collection in ("CT", "MRI", "NIfTI", "Prepared"):
            (root / collection).mkdir(parents=True)
        self._sound_files()
        for plant in (self._headers, self._voxels, self._shapes, self._copies, self._prepared, self._tables):
            plant()

    def _volume(self, collection: str, name: str, array: np.ndarray, *kinds: str) -> str:
        path = self.root / collection / name
        save_nifti(path, array, (0.8, 0.8, 4.0)) if name.endswith(".nii.gz") else np.save(path, array)
        for kind in kinds:
            self.faults[kind].add(f"{collection}/{name}")
        return f"{collection}/{name}"

    def _sound_files(self) -> None:
        for number in range(205):
            self._volume("CT", f"ct_{number:03}.npy", ct(field(self.rng)))
            self._volume("MRI", f"mri_{number:03}.npy", (field(self.rng) * 255 * self.rng.uniform(0.4, 1)).astype(np.uint8))
        for number in range(40):
            self._volume("NIfTI", f"scan_{number:03}.nii.gz", ct(field(self.rng)))

    def _headers(self) -> None:
        for number in range(3):
            name = self._volume("CT", f"cut_{number}.npy", ct(field(self.rng)), "unreadable")
            (self.root / name).write_bytes((self.root / name).read_bytes()[: 700 * (number + 1)])
        (self.root / "CT/page.npy").write_bytes(b"<html>404</html>")
        name = self._volume("NIfTI", "flipped.nii.gz", ct(field(self.rng)), "unreadable")
        content = bytearray((self.root / name).read_bytes())
        content[len(content) // 2] ^= 255
        (self.root / name).write_bytes(content)
        (self.root / "MRI/none.npy").write_bytes(b"")
        self.faults["unreadable"].add("CT/page.npy")
        self.faults["empty"].add("MRI/none.npy")
        self._volume("MRI", "no_slices.npy", np.zeros((24, 24, 0), np.uint8), "empty")
        self._volume("MRI", "flat.npy", np.zeros((24, 24), np.uint8), "not a volume")
        self._volume("MRI", "series.npy", np.zeros((24, 24, 10, 3), np.uint8), "not a volume")
        self._volume("MRI", "complex.npy", field(self.rng).astype(np.complex64), "not real numbers")
        self._volume("MRI", "object.npy", np.array([[[{}]]], dtype=object), "not real numbers")

    def _voxels(self) -> None:
        for number, value in enumerate((np.nan, np.inf, -np.inf)):
            volume = ct(field(self.rng)).astype(np.float32)
            volume[3, 4, number] = value
            self._volume("CT", f"bad_{number}.npy", volume, "NaN" if np.isnan(value) else "infinite")
        self._volume("CT", "all_nan.npy", np.full(SHAPE, np.nan, np.float32), "NaN")
        self._volume("CT", "same.npy", np.full(SHAPE, -1000, np.int16), "constant")
        self._volume("CT", "zeros.npy", np.zeros(SHAPE, np.float32), "constant")
        air = np.full(SHAPE, -1000, np.int16)
        air[10:13, 10:13, 3:6] = self.rng.integers(-100, 100, (3, 3, 3))
        self._volume("CT", "air.npy", air, "mostly air")
        noisy = (air + self.rng.normal(0, 8, SHAPE)).astype(np.int16)
        self._volume("CT", "noisy_air.npy", noisy, "mostly air")
        spike = ct(field(self.rng)).astype(np.float32)
        spike[5, 5, 5] = 1e9
        self._volume("CT", "spike.npy", spike, "extreme value")
        self._volume("CT", "unit.npy", field(self.rng), "intensity outlier")
        self._volume("CT", "offset.npy", ct(field(self.rng)) + np.int16(20000), "intensity outlier")

    def _shapes(self) -> None:
        self._volume("CT", "slices_first.npy", np.moveaxis(ct(field(self.rng)), -1, 0), "axis order")
        self._volume("MRI", "slices_second.npy", np.moveaxis((field(self.rng) * 255).astype(np.uint8), -1, 1), "axis order")
        self._volume("CT", "reversed.npy", ct(field(self.rng)).T, "axis order")
        self._volume("CT", "large.npy", ct(field(self.rng, (96, 96, 10))), "size outlier")
        self._volume("CT", "long.npy", ct(field(self.rng, (24, 24, 60))), "size outlier")
        self._volume("NIfTI", "wide.nii.gz", ct(field(self.rng)))
        save_nifti(self.root / "NIfTI/wide.nii.gz", ct(field(self.rng)), (0.8, 0.8, 40.0))
        save_nifti(self.root / "NIfTI/turned.nii.gz", np.moveaxis(ct(field(self.rng)), -1, 0), (0.8, 4.0, 0.8))
        self.faults["spacing outlier"].add("NIfTI/wide.nii.gz")
        self.faults["axis order"].add("NIfTI/turned.nii.gz")

    def _copies(self) -> None:
        for number in (1, 2):
            self._volume("MRI", f"copy_{number}.npy", np.load(self.root / f"MRI/mri_{number:03}.npy"), "duplicate")
            self.faults["duplicate"].add(f"MRI/mri_{number:03}.npy")
        values = [np.load(self.root / f"CT/ct_{number:03}.npy").astype(np.float32) for number in (10, 20, 30, 40)]
        noise = self.rng.normal(0, 40, SHAPE)
        window = (np.clip((values[0] + 900) / 1400, 0, 1) * 255).astype(np.uint8)
        changed = [
            ("MRI", window),
            ("CT", values[1] + noise),
            ("CT", values[2].astype(np.int32) + 1),
            ("MRI", values[3] / 2000),
        ]
        for number, (collection, volume) in enumerate(changed):
            name = f"again_{number}.npy"
            kinds = ["near-duplicate", *["intensity outlier"] * (number == 3)]
            self._volume(collection, name, volume.astype(volume.dtype if number != 1 else np.int16), *kinds)
            self.faults["near-duplicate"].add(f"CT/ct_{10 * (number + 1):03}.npy")

    def _prepared(self) -> None:
        rows = []
        for number in range(20):
            name = self._volume("Prepared", f"case_{number:02}.npy", ct(field(self.rng)))
            digest = hashlib.sha256((self.root / name).read_bytes()).hexdigest()
            rows.append({"file": f"case_{number:02}.npy", "subject": f"P{number}", "sha256": digest, "spacing": "0.8 0.8 4"})
        self._volume("Prepared", "case_03.npy", ct(field(self.rng)), "changed")
        (self.root / "Prepared/case_04.npy").unlink()
        self.faults["missing"].add("Prepared/case_04.npy")
        rows[5]["split"], rows[6]["split"], rows[6]["subject"] = "train", "test", "P5"
        self.faults["subject in two splits"] |= {"Prepared/case_05.npy", "Prepared/case_06.npy"}
        with open(self.root / "Prepared/manifest.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["file", "subject", "split", "sha256", "spacing"])
            writer.writeheader()
            writer.writerows(rows)

    def _tables(self) -> None:
        for name in ("IM0001", "series.dcm", "arrays.npz"):
            (self.root / "CT" / name).write_bytes(b"\0" * 128 + b"DICM")
            self.faults["not read"].add(f"CT/{name}")
        (self.root / "README.txt").write_text("not data", encoding="utf-8")
        pairs = [("CT/ct_100.npy", "A", "train"), ("MRI/mri_100.npy", "A", "test"), ("CT/ct_101.npy", "B", "valid")]
        with open(self.root / "labels.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["path", "label", "subject", "split"], *[[p, "", s, split] for p, s, split in pairs]])
        self.faults["subject in two splits"] |= {"CT/ct_100.npy", "MRI/mri_100.npy"}


def plant_pictures(root: Path, seed: int = 0) -> dict[str, set[str]]:
    """Slices of cases in three splits, with faults."""
    rng, faults = np.random.default_rng(seed), defaultdict(set)
    for split, cases in [("train", range(12)), ("valid", range(12, 16)), ("test", range(16, 20))]:
        folder = root / split / "Slices"
        folder.mkdir(parents=True)
        for case in cases:
            body = field(rng, (48, 48, 4))
            for number in range(4):
                Image.fromarray((255 * body[:, :, number]).astype(np.uint8)).save(folder / f"case{case}_frame_{number}.png")
    leaked = np.asarray(Image.open(root / "train/Slices/case3_frame_1.png"))
    Image.fromarray((leaked * 0.7).astype(np.uint8)).save(root / "test/Slices/unknown.png")
    faults["near-duplicate"] |= {"train/Slices/case3_frame_1.png", "test/Slices/unknown.png"}
    Image.fromarray((255 * field(rng, (48, 48))).astype(np.uint8)).save(root / "test/Slices/case5_frame_9.png")
    faults["subject in two splits"] |= {f"train/Slices/case5_frame_{n}.png" for n in range(4)} | {
        "test/Slices/case5_frame_9.png"
    }
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(root / "train/Slices/case1_frame_8.png")
    faults["constant"].add("train/Slices/case1_frame_8.png")
    whole = (root / "train/Slices/case2_frame_0.png").read_bytes()
    (root / "train/Slices/case2_frame_0.png").write_bytes(whole[: len(whole) // 2])
    faults["unreadable"].add("train/Slices/case2_frame_0.png")
    return faults
