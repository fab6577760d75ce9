from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from datasets.files import find_volumes
from datasets.views import plain_view
from datasets.volumes import VolumeDataset, collate_volumes
from hubconf import read_volume as read_any
from joint_ssl import DataError, load_model, read_volume
from models.joint import JointModel
from models.pretrained import load_encoders, make_encoders
from models.volume_encoder import volume_embedding
from tests import released_files as released

SHAPE = (8, 24, 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of all three stages of ours, the published ones, and three volumes of different sizes."""
    folder = tmp_path_factory.mktemp("hub")
    constants = {"arch": "resnet18", "d_model": 32, "attention": "slices", "sampling": "da020", "slice_embedding": "unit"}
    constants |= {"target_shape": list(SHAPE), "normalise": "robust", "fit": "shrink", "masking": "filled"}
    torch.manual_seed(0)
    slice_encoder, volume_encoder = make_encoders(SimpleNamespace(**constants, dropout=0.0), identity=False)
    joint = JointModel(slice_encoder, volume_encoder, (2,), (3,))
    about = {"format_version": 1, "stage": "joint", "method": "swav", "config": constants}
    torch.save({**about, "model": joint.state_dict()}, folder / "joint.pth")
    torch.save(slice_encoder.resnet.state_dict(), folder / "resnet.pth")
    (folder / "volumes").mkdir()
    rng = np.random.default_rng(1)
    for number, (shape, kind) in enumerate([((30, 40, 5), "int16"), ((20, 24, 30), "uint8"), ((24, 24, 8), "float32")]):
        np.save(folder / "volumes" / f"{number}.npy", (rng.normal(size=shape) * 30 + 100).astype(kind))
    released.write(folder)
    return folder


def on_disk(folder) -> list[np.ndarray]:
    return [np.moveaxis(np.load(path), -1, 0) for path in sorted((folder / "volumes").glob("*.npy"))]


def test_volumes_are_embedded_as_the_evaluation_embeds_their_files(folder):
    items = find_volumes(folder / "volumes")
    dataset = VolumeDataset(items, SHAPE, 0, "shrink", centred=True)
    batch = collate_volumes([dataset[(i, 0)] for i in range(len(items))])
    encoders, _ = load_encoders(folder / "joint.pth")
    encoders.to(torch.device("cpu"))
    with torch.no_grad():
        expected = encoders.embed_volumes(*plain_view(batch, "robust", torch.float32))
    embedded = load_model(str(folder / "joint.pth")).encode_volumes(on_disk(folder))
    torch.testing.assert_close(embedded, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["joint.pth", "resnet.pth", "swav3D.pth", "resnet_swav2D.pth"])
def test_any_file_takes_pictures_and_volumes_of_any_size_type_and_channels(folder, name):
    model = load_model(str(folder / name))
    width = {"joint.pth": 32, "swav3D.pth": 32}.get(name, 960)
    assert not model.training and model.encode_volumes(on_disk(folder)).shape == (3, width)
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, 4000, (40, 50)).astype(np.uint16), rng.normal(size=(1, 20, 24))]
    assert model.encode_slices(pictures).shape == (2, width)
    colours = rng.integers(0, 255, (2, 3, 33, 47)).astype(np.uint8)
    assert model.encode_slices(colours).shape == (2, width)
    five = load_model(str(folder / name), channels=5)
    grey = rng.integers(0, 255, (2, 1, 32, 32)).astype(np.uint8)
    torch.testing.assert_close(five.encode_slices(grey.repeat(5, 1)), model.encode_slices(grey), rtol=1e-4, atol=1e-5)


def test_a_published_model_takes_the_intensities_as_they_are_and_samples_other_depths_aloud(folder, capsys):
    model = load_model(str(folder / "deepcluster3D.pth"), sampling="da020")
    assert "0.0.20" in capsys.readouterr().out
    rng = np.random.default_rng(3)
    volume = (rng.normal(size=(16, 32, 32)) * 50).astype(np.float32)
    with torch.no_grad():
        slices = model.slice_encoder(torch.from_numpy(volume)[:, None].expand(-1, 3, -1, -1))
        expected = volume_embedding(model.volume_encoder(slices[None]))
    torch.testing.assert_close(model.encode_volumes(volume[None], fit=False), expected, rtol=1e-4, atol=1e-6)
    assert capsys.readouterr().out == ""
    thrice = model.encode_volumes(volume.repeat(3, 0)[None], fit=False)
    assert "48 slices are sampled to the 16" in capsys.readouterr().out
    torch.testing.assert_close(thrice, expected, rtol=1e-4, atol=1e-6)


def test_samplings_are_different_functions(folder):
    volume = np.random.default_rng(4).normal(size=(1, 16, 24, 24)).astype(np.float32)
    one, other = (load_model(str(folder / "swav3D.pth"), sampling=s).encode_volumes(volume) for s in ("da018", "da020"))
    default = load_model(str(folder / "swav3D.pth")).encode_volumes(volume)
    assert torch.equal(one, default) and not torch.allclose(one, other, atol=1e-4)


def test_torch_hub_finds_it(folder):
    model = torch.hub.load(".", "load_model", str(folder / "joint.pth"), source="local")
    assert model.encode_volumes(on_disk(folder)).shape == (3, 32)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda model: model.encode_volumes(np.zeros((5, 20, 20))), r"volumes \(N, H, W\) .* not one of \(20, 20\)"),
        (lambda model: model.encode_slices(np.zeros((20, 20))), r"not one of \(20,\)"),
        (lambda model: model.encode_slices(np.zeros((2, 20, 20, 3), np.uint8)), "has neither 1 nor 3 channels"),
        (lambda model: model.encode_volumes([]), "not none"),
        (lambda model: model.encode_volumes(["a.npy"]), r"not one of \(\)"),
        (lambda model: model.encode_volumes(np.zeros((1, 0, 20, 20))), r"not one of \(0, 20, 20\)"),
        (lambda model: model.encode_volumes([np.full((5, 20, 20), np.nan)]), "NaN or infinite"),
    ],
)
def test_what_is_no_picture_or_volume_is_refused_in_one_sentence(folder, call, says):
    with pytest.raises(ValueError, match=says):
        call(load_model(str(folder / "joint.pth")))


def test_bfloat16_tensors_are_encoded_as_their_values(folder):
    model = load_model(str(folder / "joint.pth"))
    volume = torch.rand(1, 5, 20, 20, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(model.encode_volumes(volume), model.encode_volumes(volume.float()))


@pytest.mark.parametrize("how", [{"sampling": "da19"}, {"channels": 0}, {"channels": -1}])
def test_samplings_and_channels_that_there_are_not_are_refused(folder, how):
    with pytest.raises(ValueError, match="use da018 or da020, and 1 channel or more"):
        load_model(str(folder / "joint.pth"), **how)


def write_turned(folder) -> list[str]:
    """Volumes that do not lie as they are looked at: their names."""
    stored = np.random.default_rng(5).integers(-900, 900, (12, 9, 7)).astype(np.int16)
    affine = np.array([[0, 0, 3, -5], [-1, 0.1, 0, 4], [0.1, 1, 0, 2], [0, 0, 0, 1]])
    scaled = nibabel.Nifti1Image(stored, affine)
    scaled.header.set_slope_inter(0.5, -20)
    nibabel.save(scaled, folder / "scaled.nii.gz")
    nibabel.save(nibabel.Nifti2Image(stored[..., None].astype(np.float32), affine), folder / "fourth.nii")
    nibabel.save(nibabel.Nifti1Image(stored[..., None].repeat(2, 3), affine), folder / "moving.nii.gz")
    image = SimpleITK.GetImageFromArray(stored)
    image.SetDirection((-1, 0, 0, 0, 0, 1, 0, -1, 0))
    for name in ("coronal.mha", "coronal.mhd", "coronal.nrrd"):
        SimpleITK.WriteImage(image, str(folder / name))
    np.save(folder / "plain.npy", stored)
    return ["scaled.nii.gz", "fourth.nii", "coronal.mha", "coronal.mhd", "coronal.nrrd", "plain.npy"]


def test_plain_files_are_read_as_the_checkout_reads_files_of_any_format(tmp_path):
    for name in write_turned(tmp_path):
        volume = read_volume(tmp_path / name)
        assert volume.ndim == 3 and np.array_equal(volume, read_any(str(tmp_path / name))), name


@pytest.mark.parametrize(
    "name, says",
    [
        ("scan.dcm", "is no NPY, NIfTI, MHA, MHD or NRRD file; read it by a library of its format"),
        ("none.nii.gz", r"none\.nii\.gz cannot be read as a volume \(No such file"),
        ("moving.nii.gz", "holds 2 volumes; choose one"),
    ],
)
def test_files_that_are_no_plain_volume_are_one_sentence(tmp_path, name, says):
    write_turned(tmp_path)
    with pytest.raises(DataError, match=says):
        read_volume(str(tmp_path / name))
