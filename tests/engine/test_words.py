import pytest

from engine.words import counted, duration, size


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0.273, "0.27 s"), (9.6, "10 s"), (41.4, "41 s"), (59.9, "60 s"), (725, "12 min"), (3600, "1 h 0 min"),
        (12000, "3 h 20 min"), (86400 * 4 + 6 * 3600, "4 d 6 h"),
    ],
)  # fmt: skip
def test_durations_have_two_figures(seconds, said):
    assert duration(seconds) == said


def test_sizes_are_told_in_units_of_a_thousand():
    said = {12: "12 bytes", 1500: "1.5 KB", 94_400_000: "94.4 MB", 1.5e9: "1.5 GB", 2e13: "20 TB"}
    assert {count: size(count) for count in said} == said


def test_one_thing_has_no_plural():
    assert [counted(number, "volume") for number in (0, 1, 2)] == ["0 volumes", "1 volume", "2 volumes"]
