"""Published weight files as the input of stages 2 and 3."""

import pytest
import torch

from engine.config import parse
from mask_swav_3D import MaskSwavConfig
from mask_swav_3D import main as mask_main
from models.errors import WeightsError
from models.slice_encoder import SliceEncoder, draw_published_map
from models.weight_files import read_weights
from ssl_swav_3D import SwavJointConfig, main
from tests import released_files as released

SMALL = "--arch resnet18 --d_model 32 --target_shape 16 24 24 --mask_ratio 0.2 --batch_size 5 --epochs 1 --warmup_epochs 0"


@pytest.fixture
def words(data, tmp_path, monkeypatch):
    """Flags of a run whose rate is too small to change a weight, so that what it writes is what it started from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    released.write(tmp_path / "weights")
    flags = f"{SMALL} --base_lr 1e-30 --workers 0 --precision fp32 --data_path {data / 'volumes'} --checkpoint_name out.pth"
    return [*flags.split(), "--probed_files", "0"]


def test_stage_2_starts_from_a_published_resnet(words):
    mask_main(parse(MaskSwavConfig, [*words, "--preset", "released"]), method="swav")
    written, resnet = read_weights("weights/out.pth"), read_weights("weights/resnet_swav2D.pth")
    for name, value in resnet.state.items():
        assert torch.equal(written.state[f"slice_encoder.resnet.{name}"], value), name
    assert written.about["data"][0]["items"] == 10


def test_stage_3_starts_from_published_files_and_the_map_of_the_seed(words):
    main(parse(SwavJointConfig, [*words, "--preset", "released", "--nmb_prototypes", "3"]))
    written, mask = read_weights("weights/out.pth").state, read_weights("weights/mask_swav.pth").state
    for name, value in mask.items():
        torch.testing.assert_close(written[name], value, rtol=0, atol=0)
    encoder = SliceEncoder("resnet18", 32, "published")
    draw_published_map(encoder, 31)
    assert torch.equal(written["slice_encoder.to_embedding.weight"], encoder.to_embedding.weight)


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], r"mask_swav\.pth was made with --attention features, not slices; .*--preset released"),
        (["--preset", "released", "--d_model", "64"], r"mask_swav\.pth was made with --d_model 32, not 64"),
        (["--preset", "released", "--target_shape", "24", "24", "24"], r"mask_swav\.pth is bound to 16 slices"),
        (["--trans_pretrained", "swav3D.pth"], r"swav3D\.pth is from stage 3 .* a file of stage 2"),
        (
            ["--preset", "released", "--resnet_pretrained", "mask_swav.pth"],
            r"mask_swav\.pth is from stage 2 .* a file of stage 1",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_the_flag_that_would_do(words, tmp_path, flags, message):
    with pytest.raises(WeightsError, match=message):
        main(parse(SwavJointConfig, [*words, *flags]))
    assert not (tmp_path / "runs").exists()
