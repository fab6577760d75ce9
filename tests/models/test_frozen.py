import pytest

from models.frozen import shown_to
from models.pretrained import load_encoders
from tests.small_weights import write_image, write_joint


@pytest.mark.parametrize("channels, normalise", [(3, "imagenet"), (1, "robust")])
def test_files_are_shown_as_in_training_unless_the_channels_forbid_it(tmp_path, channels, normalise):
    encoders, _ = load_encoders(write_image(tmp_path / "a.pth", normalise="imagenet"), channels=channels)
    assert shown_to(encoders) == ((64, 24, 24), "shrink", normalise)


def test_what_a_file_says_of_volumes_is_heeded(tmp_path):
    encoders, _ = load_encoders(write_joint(tmp_path / "a.pth", fit="crop", normalise="none"))
    assert shown_to(encoders) == ((16, 24, 24), "crop", "none")
