from pathlib import Path

import pytest
from PIL import Image

from engine.report_downstream import downstream_tables
from engine.report_starts import name_of, names_of, segmentation_verdicts, weights_of
from engine.report_words import DOUBTFUL, GOOD
from engine.results import write_rows
from engine.run_record import StageRecord
from engine.segmentation_report import COLUMNS, write_report
from tests.engine.test_segmentation_report import cases as scored_cases

STAGE = StageRecord(Path("r/ssl_swav_2D"), "ssl_swav_2D", {"checkpoint_name": "resnet_swav2D.pth"})


def started(folder, start="", context=False, tune="full", dice=(0.5, 0.6, 0.7), right=0.5, named="", **constants):
    """A segmentation of three test volumes, with a class `left` of these Dice and a class `right` of one."""
    folder = folder / f"segmentation-{named or start or 'random'}"
    means = {name: {"value": value, "interval": None, "deviation": None} for name, value in (("left", 0.6), ("right", right))}
    results = {"volumes": 3, "subjects": 3, "seeds": [1], "unit": "mm", "tolerance": 2.0, "mean": {"dice": means["left"]}}
    results["classes"] = {name: {"dice": of} for name, of in means.items()}
    rows = [(1, f"case{n}", f"subject{n}", "test", "left", "found", of, "", "", "", "mm") for n, of in enumerate(dice)]
    write_rows(folder / "cases.csv", COLUMNS, rows)
    config = {"start_from": start, "context": context, "tune": tune, **constants}
    return StageRecord(folder, "finetune_segmentation", config, results={"test": results})


def only(records):
    (verdict,) = segmentation_verdicts(records)
    return verdict


def test_a_start_that_is_better_on_every_volume_is_said_to_be(tmp_path):
    found = only([started(tmp_path), started(tmp_path, "a.pth", dice=(0.7, 0.8, 0.9))])
    assert found.level == GOOD
    assert "+0.20 (+0.20 to +0.20) against random, paired over 3 test volumes, 1 seed." in found.sentence


@pytest.mark.parametrize(
    "how, words",
    [
        ({"dice": (0.4, 0.6, 0.8)}, "these volumes do not tell them apart"),
        ({"dice": (0.4, 0.5, 0.6)}, "−0.10 (−0.10 to −0.10)"),
        ({"dice": (0.7, 0.8, 0.9), "right": 0.01}, "fails on right (Dice 0.01)"),
        ({"dice": (0.7, 0.8), "right": 0.5}, "nothing from random weights was judged on the same volumes"),
        ({"dice": (0.7, 0.8, 0.9), "tune": "linear"}, "nothing from random weights was judged on the same volumes"),
    ],
)
def test_a_start_that_is_not_shown_to_be_better_is_marked(tmp_path, how, words):
    found = only([started(tmp_path), started(tmp_path, "a.pth", **how)])
    assert found.level == DOUBTFUL and words in found.sentence


def test_another_network_is_told_from_other_weights(tmp_path):
    with_context = started(tmp_path, "a.pth", context=True, dice=(0.7, 0.8, 0.9))
    assert "f_inter takes part in one of the two networks only" in only([started(tmp_path), with_context]).sentence
    like = [started(tmp_path), started(tmp_path, context=True, named="random-context"), with_context]
    assert "against random-context" in only(like).sentence and "f_inter" not in only(like).sentence


def test_what_pretrained_weights_are_worth_comes_before_random_ones_that_fail(tmp_path):
    first, second = segmentation_verdicts([started(tmp_path, right=0.01), started(tmp_path, "a.pth")])
    assert "from a.pth" in first.sentence and second.sentence == "Segmentation from random: fails on right (Dice 0.01)."


def test_weights_are_those_of_a_stage_of_the_run_where_one_has_written_them(tmp_path):
    assert weights_of(started(tmp_path, "resnet_swav2D.pth"), [STAGE]) == "stage 1 (resnet_swav2D.pth)"
    assert weights_of(started(tmp_path, "other.pth"), [STAGE]) == "other.pth"
    assert weights_of(started(tmp_path), [STAGE]) == "random"


def test_a_folder_that_is_called_random_does_not_make_weights_random(tmp_path):
    folder = tmp_path / "exp-random"
    assert name_of(StageRecord(folder, "finetune_segmentation", {"start_from": "swav3D.pth"})) == "swav3D.pth"
    assert name_of(started(tmp_path, "swav3D.pth", named="random")) == "swav3D.pth"
    assert name_of(started(tmp_path, "swav3D.pth", named="swav3D-context")) == "swav3D-context"
    twice = [StageRecord(tmp_path / of, "finetune_segmentation", {"start_from": "a.pth"}) for of in ("seed-1", "seed-2")]
    assert names_of([*twice, started(tmp_path)]) == ["a.pth (seed-1)", "a.pth (seed-2)", "random"]


def test_what_no_configuration_tells_is_not_called_random_weights(tmp_path):
    known = started(tmp_path, named="mine")
    unknown = StageRecord(known.folder, known.script, results=known.results)
    assert name_of(unknown) == "segmentation-mine" and weights_of(unknown, [STAGE]) == "–"
    assert "what it started from is not known" in only([unknown, started(tmp_path)]).sentence


def test_random_weights_of_another_run_serve_where_a_run_has_none(tmp_path):
    random, better = started(tmp_path / "a"), started(tmp_path / "b", "a.pth", dice=(0.7, 0.8, 0.9))
    (found,) = segmentation_verdicts([better], elsewhere=[random])
    assert found.level == GOOD and f"against random of {random.folder}, paired over 3 test volumes" in found.sentence
    own = started(tmp_path / "b", dice=(0.7, 0.8, 0.9))
    (found,) = segmentation_verdicts([better, own], elsewhere=[random])
    assert "+0.00 (+0.00 to +0.00) against random, paired" in found.sentence


def test_volumes_of_other_data_are_others_and_other_constants_are_told(tmp_path):
    better = started(tmp_path / "b", "a.pth", dice=(0.7, 0.8, 0.9), data_path="x", epochs=80, labelled=2)
    other = started(tmp_path / "a", data_path="y", epochs=80, labelled=2)
    (found,) = segmentation_verdicts([better], elsewhere=[other])
    assert "nothing from random weights was judged on the same volumes" in found.sentence
    (found,) = segmentation_verdicts([better], elsewhere=[started(tmp_path / "a", data_path="x", epochs=40, labelled=0)])
    assert found.level == DOUBTFUL and found.sentence.endswith("1 seed; the two differ in epochs, labelled, too.")


def test_every_class_of_every_start_is_in_the_table_and_those_not_found_are_marked(tmp_path):
    starts = [started(tmp_path, f"{n}.pth", context=n == 0, right=0.04 if n == 3 else 0.06) for n in range(8)]
    text = downstream_tables([started(tmp_path), *starts], [STAGE])
    assert text.count("Dice of right ↑") == 2 and text.count("<td") == 9 * 6  # two tables, for more would not fit
    of_five, of_four = (of.count("</th>") for of in text.split("</table>")[0:2])
    assert of_five - of_four == 1  # and none with a single start
    assert text.count("▲ 0.04") == 1 and "▲ 0.06" not in text
    assert "3 volumes of 3 subjects, 1 seed; in brackets 95 % intervals by bootstrap over subjects, not over seeds" in text
    assert "No start from random weights has f_inter" in text


def test_measures_have_units_and_a_direction(tmp_path):
    record = started(tmp_path)
    results = write_report(tmp_path / "written", scored_cases(), ["one", "two"], 1.5)
    record = StageRecord(tmp_path / "written", "finetune_segmentation", record.config, results=results)
    text = downstream_tables([record], [])
    assert "mean HD95, mm, of what was missed the diagonal ↓" in text and "mean surface Dice within 1.5 mm ↑" in text


def test_pictures_of_each_seed_are_shown_and_named(tmp_path):
    record = started(tmp_path, "a.pth")
    for seed in (1, 2):
        (record.folder / f"seed-{seed}").mkdir()
        Image.new("RGB", (8, 8)).save(record.folder / f"seed-{seed}" / "best_median_worst_test.png")
    page = downstream_tables([record], [STAGE])
    assert page.count("<img") == 2 and "a.pth: seed 2, best, median and worst test case" in page
