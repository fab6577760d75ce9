import pytest
import torch

from models.attention import DeformableAttention
from models.image_model import ImageModel
from models.joint import JointModel
from models.looking import attended_slices, load_image_network, load_whole_network, look_at_volumes
from models.masked_volume import MaskedVolumeModel
from models.slice_encoder import SliceEncoder
from models.volume_encoder import VolumeEncoder

CONFIG = {"arch": "resnet18", "d_model": 32, "dropout": 0.0, "target_shape": [6, 16, 16], "scores": "cosine"}


def test_shares_of_attention_and_what_is_lost_make_a_whole():
    torch.manual_seed(0)
    encoder = VolumeEncoder(32, layers=2, heads=4, head_dim=8, identity=False, dropout=0.0).eval()
    for shares, lost in attended_slices(encoder, torch.randn(9, 32)):
        assert shares.shape == (9, 9) and (shares >= -1e-6).all()
        assert torch.allclose(shares.sum(1) + lost, torch.ones(9), atol=1e-5)


@pytest.mark.parametrize("sampling", ["da020", "da018"])
def test_a_slice_that_no_key_is_read_from_changes_no_output_but_its_own(sampling):
    """`places` is where `attend` reads: a change elsewhere reaches only the slice's own query, where offsets stay."""
    torch.manual_seed(0)
    attention = DeformableAttention(32, heads=4, head_dim=8, sampling=sampling).double().eval()
    torch.nn.init.zeros_(attention.to_offsets[-1].weight)  # places do not depend on the input
    x = torch.randn(1, 24, 32, dtype=torch.float64)
    places = attention.places(x)
    read = set(places.floor().long().flatten().tolist()) | set(places.ceil().long().flatten().tolist())
    spared = next(item for item in range(24) if item not in read)
    changed = x.clone()
    changed[0, spared] += 1
    same = (attention(x) - attention(changed)).abs().amax(2)[0] < 1e-12
    assert same.tolist() == [item != spared for item in range(24)]


def joint_model():
    torch.manual_seed(0)
    return JointModel(SliceEncoder("resnet18", 32), VolumeEncoder(32, dropout=0.0), [3, 4], [5]).eval()


def test_a_weight_file_of_stage_3_comes_back_with_its_heads(tmp_path):
    model = joint_model()
    about = {"format_version": 1, "stage": "joint", "method": "swav", "config": CONFIG, "run": "1"}
    torch.save({**about, "model": model.state_dict()}, tmp_path / "swav3D.pth")
    network = load_whole_network(tmp_path / "swav3D.pth")
    pixels, real = torch.randn(2, 6, 16, 16), torch.arange(6) < torch.tensor([6, 4])[:, None]
    masked = torch.zeros(2, 6, dtype=torch.bool)
    masked[:, 2] = True
    found = look_at_volumes(network, pixels, real, masked)
    with torch.no_grad():
        out = model(pixels, real, masked)
    assert torch.equal(found["volumes"], out.volume_embeddings) and torch.equal(found["predictions"], out.predictions)
    assert torch.allclose(found["projections"][real], out.projections, atol=1e-6)
    assert torch.allclose(network.prototypes.volumes(found["volumes"])[1], out.volume_scores[1])
    assert not found["projections"][~real].any()


def test_a_weight_file_of_stage_2_has_no_heads_and_one_of_stage_1_is_refused(tmp_path):
    from models.errors import WeightsError

    torch.manual_seed(0)
    parts = torch.nn.ModuleDict(
        {"slice_encoder": SliceEncoder("resnet18", 32), "masked": MaskedVolumeModel(VolumeEncoder(32, dropout=0.0), 32)}
    )
    about = {"format_version": 1, "stage": "mask", "method": "swav", "config": CONFIG, "run": "1"}
    torch.save({**about, "model": parts.state_dict()}, tmp_path / "mask_swav.pth")
    assert not hasattr(load_whole_network(tmp_path / "mask_swav.pth"), "prototypes")
    torch.save(parts["slice_encoder"].resnet.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match="is from stage 1"):
        load_whole_network(tmp_path / "resnet.pth")


@pytest.mark.parametrize("batchnorm", [True, False])
def test_the_network_of_stage_1_comes_back_from_its_state(batchnorm):
    torch.manual_seed(0)
    model = ImageModel(SliceEncoder("resnet18"), [7, 3], head_batchnorm=batchnorm).eval()
    network, crops = load_image_network(model.state_dict(), "resnet18", "cosine"), [torch.randn(2, 1, 16, 16)]
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(crops)[1][0], network(crops)[1][0]))
