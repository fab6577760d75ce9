import math
from pathlib import Path

import pytest

from engine.report_words import BAD, DOUBTFUL, GOOD, cluster_use, overall, stage_name, verdicts, warnings_in_words
from engine.run_record import StageRecord

LN_K = math.log(30)


def of_images(loss=1.9, rank=12.0, used=30, epochs=1):
    last = {"epoch": 0, "step": 3, "images_loss": loss, "images_ln_k": LN_K, "images_rank": rank, "images_clusters_used": used}
    return StageRecord(Path("r"), "ssl_swav_2D", {"epochs": epochs}, {}, [{**last, "images_rows": 192}])


@pytest.mark.parametrize(
    "stage, level, words",
    [
        (of_images(), GOOD, "30 of 30 possible clusters were assigned in its batches; RankMe of projections is 12"),
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


@pytest.mark.parametrize(
    "counts, level, words",
    [
        ([3] * 20, GOOD, "20 of 20 clusters are the nearest one of any of 60; the largest holds 5 %"),
        ([240] + [0] * 29, BAD, "all fall to the same one, a collapse"),
        ([10] * 9 + [0] * 11, DOUBTFUL, "fewer than half are used"),
        ([20] + [3] * 15, DOUBTFUL, "the largest holds 31 %, over a fifth"),
        ([30, 20, 10], GOOD, "the largest holds 50 %"),  # of three clusters one may well
        ([1] * 5 + [0] * 95, GOOD, "5 of 100 clusters"),  # five files cannot fall to more
    ],
)
def test_clusters_of_whole_files_are_told_from_those_of_training(counts, level, words):
    found = cluster_use(counts, "Slices")
    assert found.level == level and words in found.sentence and "not augmented" in found.sentence


def test_neighbours_in_the_evaluation_are_held_against_random_weights_and_chance():
    stage = StageRecord(**{**vars(of_images()), "config": {"checkpoint_name": "a.pth"}, "about": {"run": "1"}})
    own = {"knn": 0.9, "knn_interval": [0.86, 0.93], "knn_chance": 0.5, "knn_files": 200}
    evaluation = {"random weights": {"images": {"knn": 0.8}}, "a.pth": {"images": own}}
    found = verdicts(stage, evaluation)[-1]
    assert found.level == GOOD
    assert "90.0 % of 200 images right (random weights 80.0 %, always the most frequent label 50.0 %)" in found.sentence
    evaluation["random weights"]["images"]["knn"] = 0.88
    assert verdicts(stage, evaluation)[-1].level == DOUBTFUL
    assert len(verdicts(of_images(), evaluation)) == 1  # weights of another run


def test_a_stage_is_called_after_what_it_does():
    assert stage_name(StageRecord(Path("r"), "mask_swav_3D")) == "Stage 2: f_inter by masked slices, after SwAV"
    assert stage_name(StageRecord(Path("r"), "ssl_deepcluster_2D")) == "Stage 1: f_intra by DeepClusterV2 of pictures"
