import hashlib

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets import inspection
from datasets.inspection import content_of, full_facts, quick_facts
from datasets.likeness import candidates, fingerprint, likeness, normalised, sampled
from tests.planted_faults import field


def grey(volume: np.ndarray) -> np.ndarray:
    sample = sampled(volume)
    return normalised(sample, *np.percentile(sample, (0.5, 99.5)))


def test_headers_tell_shape_type_and_spacing(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((5, 4, 3), np.int16))  # slices, rows, columns
    image.SetSpacing((0.5, 0.75, 3.0))  # columns, rows, slices
    SimpleITK.WriteImage(image, str(tmp_path / "v.nii.gz"))
    np.save(tmp_path / "v.npy", np.zeros((4, 3, 5), np.float32))
    Image.fromarray(np.zeros((7, 9), np.uint16)).save(tmp_path / "v.png")
    nifti, npy, picture = (quick_facts(tmp_path / name, name != "v.png") for name in ("v.nii.gz", "v.npy", "v.png"))
    assert (nifti.shape, nifti.dtype) == ((4, 3, 5), "int16")
    assert nifti.spacing == pytest.approx((0.75, 0.5, 3.0))
    assert (npy.shape, npy.dtype, npy.spacing) == ((4, 3, 5), "float32", None)
    assert npy.bytes == (tmp_path / "v.npy").stat().st_size
    assert (picture.shape, picture.dtype) == ((7, 9), "uint16")


@pytest.mark.parametrize(
    "array, kind",
    [
        (np.zeros((4, 4)), "not a volume"),
        (np.zeros((4, 4, 4, 0)), "not a volume"),
        (np.zeros((4, 4, 0)), "empty"),
        (np.zeros((4, 4, 4), complex), "not real numbers"),
        (np.array([[[{}]]], dtype=object), "not real numbers"),
    ],
)
def test_each_kind_of_header_fault_has_its_name(tmp_path, array, kind):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    assert quick_facts(tmp_path / "v.npy", True).kind == kind
    assert str(tmp_path / "v.npy") in quick_facts(tmp_path / "v.npy", True).fault


def test_what_is_no_file_of_its_kind_is_unreadable(tmp_path):
    for name in ("a.npy", "a.nii", "a.nii.gz", "a.mha", "a.nrrd", "a.png"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
        assert quick_facts(tmp_path / name, name != "a.png").kind == "unreadable"
    assert quick_facts(tmp_path / "gone.npy", True).kind == "unreadable"
    (tmp_path / "a.npy").write_bytes(b"")
    assert quick_facts(tmp_path / "a.npy", True).kind == "empty"


def test_damage_behind_the_header_is_found_by_reading_all(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(field(np.random.default_rng(0))), str(tmp_path / "v.nii.gz"))
    content = (tmp_path / "v.nii.gz").read_bytes()
    (tmp_path / "v.nii.gz").write_bytes(content[: len(content) * 2 // 3])
    assert not quick_facts(tmp_path / "v.nii.gz", True).fault
    assert full_facts(tmp_path / "v.nii.gz", True).kind == "unreadable"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["u1", "i2", ">i2", "f2", "f4", ">f8", "?"]), st.sampled_from("CF"))
def test_facts_are_those_of_all_voxels(seed, dtype, order):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 3))
    volume = np.asarray(rng.integers(0, 100, shape).astype(dtype), order=order).swapaxes(0, 1)
    if volume.dtype.kind == "f":
        volume[rng.random(volume.shape) < 0.1] = np.nan
        volume[rng.random(volume.shape) < 0.1] = -np.inf
    numbers = volume[np.isfinite(volume)].astype(float)
    inspection_block, inspection.BLOCK = inspection.BLOCK, 7
    try:
        content = content_of(volume, "")
    finally:
        inspection.BLOCK = inspection_block
    assert (content.nans, content.infinities) == (np.isnan(volume).sum(), np.isinf(volume).sum())
    if numbers.size:
        assert (content.least, content.most) == (numbers.min(), numbers.max())
        assert content.low == pytest.approx(np.percentile(numbers, 0.5), rel=1e-3)
    assert content.constant == bool(np.isfinite(volume).all() and len(np.unique(volume)) == 1)


def test_hash_is_that_of_the_file(tmp_path):
    np.save(tmp_path / "v.npy", field(np.random.default_rng(0)))
    digest = hashlib.sha256((tmp_path / "v.npy").read_bytes()).hexdigest()
    assert full_facts(tmp_path / "v.npy", True).content.sha256 == digest


def test_hash_of_a_header_is_also_of_the_voxels_beside_it(tmp_path):
    rng, digests = np.random.default_rng(0), set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(field(rng)), str(tmp_path / folder / "v.mhd"))
        digests.add(full_facts(tmp_path / folder / "v.mhd", True).content.sha256)
    assert (tmp_path / "a/v.mhd").read_bytes() == (tmp_path / "b/v.mhd").read_bytes()
    assert len(digests) == 2


def test_air_is_found_under_noise():
    rng = np.random.default_rng(0)
    volume = rng.normal(-1000, 8, (40, 40, 20))
    volume[18:22, 18:22, 5:15] = 50
    assert content_of(volume, "").air > 0.98
    assert content_of(field(rng), "").air < 0.6


def test_neighbours_differ_more_across_thick_slices():
    volume = field(np.random.default_rng(0), (40, 40, 20))[:, :, ::2]
    rows, columns, slices = content_of(volume, "").roughness
    assert slices > 1.5 * max(rows, columns)
    assert content_of(np.moveaxis(volume, -1, 0), "").roughness == pytest.approx((slices, rows, columns), rel=0.02)


@pytest.mark.parametrize("shape", [(40, 40, 12), (90, 70, 1)])
def test_copies_are_alike_and_others_are_not(shape):
    rng = np.random.default_rng(0)
    one, other = field(rng, shape), field(rng, shape)
    noise = 0.03 * rng.standard_normal(shape)
    for copy in (one + noise, np.clip(2 * one - 0.3, 0, 1), (4000 * one).astype(np.int16), one**0.7, -1000 + 50 * one):
        assert likeness(grey(one), grey(copy)) > 0.99
        assert fingerprint(grey(one)).astype(float) @ fingerprint(grey(copy)) > 0.9
    assert likeness(grey(one), grey(other)) < 0.3


def test_alike_in_the_outline_is_no_copy():
    """As two series of one patient are, registered to each other."""
    rng = np.random.default_rng(0)
    outline, inside, other = (field(rng, (40, 40, 12)) for _ in range(3))
    assert likeness(grey(outline + 0.3 * inside), grey(outline + 0.3 * other)) < 0.98


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 600))
def test_every_copy_is_a_candidate_and_none_of_its_own_group(seed, count):
    rng = np.random.default_rng(seed)
    prints = rng.standard_normal((count, 64))
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    one, other = sorted(rng.choice(count, 2, replace=False))
    prints[other] = prints[one]
    groups = np.arange(count)
    assert (one, other) in candidates(prints.astype(np.float16), groups)
    groups[other] = one
    assert (one, other) not in candidates(prints.astype(np.float16), groups)
