import math
from pathlib import Path

import pytest

from engine.report_words import BAD, DOUBTFUL, GOOD, overall, verdicts, warnings_in_words
from engine.run_record import StageRecord

LN_K = math.log(30)


def of_images(loss=1.9, rank=12.0, used=30, epochs=1):
    last = {"epoch": 0, "step": 3, "images_loss": loss, "images_ln_k": LN_K, "images_rank": rank, "images_clusters_used": used}
    return StageRecord(Path("r"), "ssl_swav_2D", {"epochs": epochs}, {}, [{**last, "images_rows": 192}])


@pytest.mark.parametrize(
    "stage, level, words",
    [
        (of_images(), GOOD, "30 of 30 possible clusters"),
        (of_images(rank=1.2), BAD, "nearly the same, a collapse"),
        (of_images(used=3), BAD, "most clusters are empty"),
        (of_images(loss=LN_K * 0.995), BAD, "nothing was learned"),
        (of_images(loss=LN_K * 0.97), DOUBTFUL, "little was learned"),
        (of_images(loss=LN_K * 1.2), DOUBTFUL, "above ln K"),
        (of_images(loss=None), DOUBTFUL, "incomplete"),
        (of_images(epochs=5), DOUBTFUL, "1 of 5 epochs are done"),
        (StageRecord(Path("r"), "mask_swav_3D", {}, {}, []), DOUBTFUL, "No epoch is finished"),
    ],
)
def test_the_worst_that_the_last_epoch_shows_is_said(stage, level, words):
    found = verdicts(stage)
    assert overall(found).level == level and words in " ".join(verdict.sentence for verdict in found)


@pytest.mark.parametrize("mean, beyond, level", [(0.9, 0.1, GOOD), (0.9, -0.1, DOUBTFUL), (-0.1, -0.5, BAD)])
def test_masked_slices_are_held_against_simple_guesses(mean, beyond, level):
    epochs = [{"epoch": 0, "step": 3, "r2_mean": mean, "r2_interpolation": beyond}]
    assert overall(verdicts(StageRecord(Path("r"), "mask_swav_3D", {"epochs": 1}, {}, epochs))).level == level


def test_warnings_that_differ_in_figures_only_are_said_once():
    of_epochs = [["images: 3 clusters"], ["images: 2 clusters"], [], ["images: 1 clusters", "other"]]
    assert warnings_in_words(of_epochs) == ["Epochs 1–2, 4: images: 1 clusters", "Epoch 4: other"]


def test_a_network_that_never_learned_is_not_called_collapsed():
    assert overall(verdicts(of_images(rank=1.2))).sentence.startswith("Yes")
    assert overall(verdicts(of_images(loss=LN_K))).sentence.startswith("No collapse, but some of it never learned")
