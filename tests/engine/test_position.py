import pytest

from engine.errors import UserError
from engine.position import Position

DATA = {"what": "pictures", "items": 12, "collections": {"": 2}, "names": "ab" * 32, "depths": "cd" * 32}


def position(**changed) -> Position:
    data = {key: value for key, value in (DATA | changed).items() if value is not None}
    return Position(step=3, steps_per_epoch=2, epochs=5, data=[data])


@pytest.mark.parametrize("changed", [{"items": 10}, {"depths": "ef" * 32}, {"items": 10, "depths": None}])
def test_volumes_of_other_depths_under_the_same_names_are_refused(changed):
    with pytest.raises(UserError, match=r"run holds a run of volumes that had other numbers of slices \(12 pictures, now 1"):
        position().refuse_other(position(**changed), "run", anyway=True)


def test_what_an_earlier_version_did_not_write_down_is_not_asked_for():
    position(depths=None).refuse_other(position(), "run", anyway=False)
    Position.of({"step": 3, "steps_per_epoch": 2}).refuse_other(position(), "run", anyway=False)
