from pathlib import Path

from engine.report_tables import first_and_last
from engine.run_record import StageRecord


def test_epochs_are_counted_from_one_as_on_the_axis_of_curves():
    epochs = [{"kind": "epoch", "epoch": number, "loss": 1.5} for number in range(4)]
    text = first_and_last(StageRecord(Path("r"), "ssl_swav_2D", epochs=epochs))
    assert '<th scope="row">epoch</th><td data-label="first epoch">1</td><td data-label="last epoch">4</td>' in text
    assert epochs[0]["epoch"] == 0
