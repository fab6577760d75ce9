from pathlib import Path

from engine.report_tables import evaluation_tables, first_and_last
from engine.run_record import StageRecord


def test_epochs_are_counted_from_one_as_on_the_axis_of_curves():
    epochs = [{"kind": "epoch", "epoch": number, "loss": 1.5} for number in range(4)]
    text = first_and_last(StageRecord(Path("r"), "ssl_swav_2D", epochs=epochs))
    assert '<th scope="row">epoch</th><td data-label="first epoch">1</td><td data-label="last epoch">4</td>' in text
    assert epochs[0]["epoch"] == 0


def test_evaluated_weights_are_those_of_a_stage_of_the_run():
    stage = StageRecord(Path("r"), "mask_swav_3D", {"checkpoint_name": "mask_swav.pth"})
    scores = {"files": 9, "knn": 0.5, "knn_chance": 0.4}
    text = evaluation_tables({name: {"volumes": scores} for name in ("mask_swav.pth", "b.pth")}, [stage])
    assert "stage 2 (mask_<wbr>swav.pth)</th>" in text and ">b.pth</th>" in text
    assert "9 volumes" in text and "95 % intervals over files, not over seeds; kNN by chance: 40.0 %" in text
