from types import SimpleNamespace

import numpy as np
import pytest

from engine.report_volumes import VolumeLook, masked_slices

ITEM = SimpleNamespace(collection="", label="", path=SimpleNamespace(name="a.npy"))


@pytest.mark.parametrize(
    "predictions, guesses, marked", [((2, 1), (1, 1), False), ((1, 1), (2, 1), True), ((2, 2), (2, 2), False)]
)
def test_predictions_that_hit_less_often_than_interpolating_are_marked(predictions, guesses, marked):
    """The third of five slices is masked; predictions and guesses are embeddings of the slices of these numbers."""
    slices = np.eye(5, dtype=np.float32)
    found = {"slices": slices}
    for name, (middle, other) in {"predictions": predictions, "guesses": guesses}.items():
        found[name] = slices[[other, other, middle, other, other]]
    look = VolumeLook(ITEM, np.zeros((5, 4, 4), np.uint8), np.arange(5), np.arange(5) == 2, found)
    text = masked_slices([look], ["subject"], [ITEM])
    assert ("▲" in text) == marked and "slice 3, masked" in text
