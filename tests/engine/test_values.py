import pytest

from engine.config import FinetuneConfig, parse
from engine.errors import UserError
from mask_deepcluster_3D import MaskConfig
from ssl_swav_2D import SwavImageConfig
from ssl_swav_3D import SwavJointConfig


@pytest.mark.parametrize(
    "config_class, words, message",
    [
        (SwavJointConfig, "--batch_size 0", "--batch_size is 0; it must be above 0"),
        (SwavJointConfig, "--target_shape 0 24 24", "--target_shape is 0 24 24; it must be above 0"),
        (SwavJointConfig, "--workers -1", "--workers is -1; it must be 0 or above"),
        (SwavJointConfig, "--nmb_slice_prototypes 4 0", "--nmb_slice_prototypes is 4 0"),
        (SwavJointConfig, "--d_model 30", "multiple of 8"),
        (MaskConfig, "--mask_ratio 2", "--mask_ratio is 2.0; it must be above 0 and at most 1"),
        (MaskConfig, "--scored_volumes 0", "--scored_volumes is 0"),
        (SwavImageConfig, "--nmb_crops 2 1 --size_crops 24", "--nmb_crops has 2 values and --size_crops 1"),
        (SwavImageConfig, "--nmb_crops 2 1 1 --size_crops 24 20 16", "--min_scale_crops has 2 values for 3 sizes"),
        (SwavImageConfig, "--nmb_crops 1 --size_crops 24", "two crops"),
        (SwavImageConfig, "--epsilon 0", "--epsilon is 0.0"),
        (FinetuneConfig, "--resnet_pretrained resnet.pth", "only completes a file that --start_from names"),
        (FinetuneConfig, "--pretrained_rate 0.1", "--pretrained_rate is that of weights which --start_from names"),
    ],
)
def test_values_that_nothing_can_be_computed_with_are_refused(config_class, words, message):
    with pytest.raises(UserError, match=message):
        parse(config_class, words.split())


@pytest.mark.parametrize("config_class", [SwavJointConfig, MaskConfig, SwavImageConfig])
def test_defaults_are_possible(config_class):
    assert parse(config_class, []) == config_class()
