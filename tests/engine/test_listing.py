import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from engine.errors import UserError
from engine.listing import Listing, told


@dataclass(frozen=True)
class File:
    path: Path

    @property
    def name(self):
        return self.path.name

    def fault(self):
        with open("read.txt", "a", encoding="utf-8") as log:
            log.write(f"{self.name}\n")
        return f"{self.name} is bad" if b"bad" in self.path.read_bytes() else ""

    @staticmethod
    def concerns(items):
        Path("asked.txt").write_text(" ".join(names(items)), encoding="utf-8")
        seen = [(item.name, item.path.read_text(encoding="utf-8")) for item in items]
        return [("bad" in text, f"{name} is {text}.") for name, text in seen if text != "good"]


def found(*contents):
    """Relative paths: each process looks for them where it stands."""
    for number, content in enumerate(contents):
        Path(f"{number}.x").write_text(content, encoding="utf-8")
    return sorted((File(Path(path.name)) for path in Path().glob("*.x")), key=lambda file: file.name)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(items):
    return [item.name for item in items]


def test_stop_reads_nothing_beforehand():
    assert names(Listing("stop", 2).find(found, "good", "bad")) == ["0.x", "1.x"]
    assert not Path("read.txt").exists()


def test_headers_that_cannot_be_read_end_the_run_at_its_start_and_others_are_told_once():
    listing = Listing("stop", 1)
    items = listing.find(found, "good", "odd")
    assert listing.concerns(items) == ["1.x is odd."]
    Path("asked.txt").unlink()
    assert listing.concerns(items[:1]) == [] and not Path("asked.txt").exists()
    with pytest.raises(UserError, match=r"2.x is bad. 1 more are so. Replace .* --on_bad_file skip"):
        listing.concerns(listing.find(found, "good", "odd", "bad", "bad"))
    assert Listing("skip", 1).concerns(items) == ["1.x is odd."]


def test_skip_leaves_out_what_has_a_fault_and_says_why():
    listing = Listing("skip", 2)
    assert names(listing.find(found, "good", "bad", "good")) == ["0.x", "2.x"]
    assert listing.left_out == {"1.x": "1.x is bad"}
    assert told(listing.left_out) == "1 file(s) were left out (--on_bad_file skip): 1.x is bad"
    assert told({}) == "" and told({str(i): f"{i} is bad." for i in range(7)}).endswith("4 is bad. And 2 more.")


def test_several_lists_stay_several():
    both = Listing("skip", 1).find(lambda: (found("good", "bad"), []))
    assert names(both[0]) == ["0.x"] and both[1] == []


def test_when_nothing_is_left_the_first_reason_is_told():
    with pytest.raises(UserError, match=r"none of 2 files can be learned from; the first: 0\.x is bad"):
        Listing("skip", 1).find(found, "bad", "bad")


def test_a_file_is_read_again_only_when_it_has_changed(here):
    listing = Listing("skip", 1, here / "checked_files.json")
    listing.find(found, "good", "bad", "good")
    listing.find(found, "good")
    assert sorted(Path("read.txt").read_text(encoding="utf-8").split()) == [
        "0.x",
        "0.x",
        "1.x",
        "2.x",
    ]  # written anew, so read anew
    listing.save()
    os.utime("2.x", ns=(1, 1))
    again = Listing("skip", 1, here / "checked_files.json")
    assert names(again.find(found)) == ["0.x", "2.x"] and again.left_out == {"1.x": "1.x is bad"}
    assert Path("read.txt").read_text(encoding="utf-8").split()[4:] == ["1.x", "2.x"]  # what was bad may be good now
    assert set(json.loads((here / "checked_files.json").read_text(encoding="utf-8"))) == {"0.x", "2.x"}
    anew = Listing("skip", 1, here / "checked_files.json", anew=True)
    assert anew.known == {} and again.known


@pytest.mark.parametrize("content", ['{"0.x": [4, 1', "[]", '{"0.x": 3}', '{"0.x": [1, 2]}', "[" * 100_000])
def test_a_memory_that_cannot_be_read_is_none(here, content):
    Path("checked_files.json").write_text(content, encoding="utf-8")
    listing = Listing("skip", 1, here / "checked_files.json")
    assert names(listing.find(found, "good")) == ["0.x"]
    listing.save()
    assert "0.x" in Listing("skip", 1, here / "checked_files.json").known


def test_a_memory_that_cannot_be_written_stops_nothing(here):
    listing = Listing("skip", 1, here / "nowhere" / "checked_files.json")
    assert listing.find(found, "good")
    listing.save()
    assert not (here / "nowhere").exists()


def missing():
    raise UserError("there is no such folder.")


def process(rank, folder, outcome):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{outcome}", rank=rank, world_size=2)
    os.chdir(f"{folder}/{rank}")
    try:
        listing = Listing("skip", 1)
        told = [names(listing.find(missing if outcome == "missing" else found)), listing.left_out]
    except UserError as error:
        told = str(error)
    Path(f"{folder}/{outcome}-{rank}.json").write_text(json.dumps(told), encoding="utf-8")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")

    def run(outcome, *second):
        for rank, contents in enumerate((("good", "bad", "good", "bad"), second)):
            (folder / str(rank)).mkdir(exist_ok=True)
            for number, content in enumerate(contents):
                (folder / f"{rank}/{number}.x").write_text(content, encoding="utf-8")
        mp.spawn(process, (str(folder), outcome), nprocs=2)
        return [json.loads((folder / f"{outcome}-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)], folder

    return run


def test_two_processes_share_the_reading_and_leave_out_the_same(two_processes):
    told, folder = two_processes("whole", "good", "bad", "good", "bad", "more")  # what only the second one has is not listed
    assert told[0] == told[1] == [["0.x", "2.x"], {"1.x": "1.x is bad", "3.x": "3.x is bad"}]
    assert [(folder / f"{rank}/read.txt").read_text(encoding="utf-8").split() for rank in range(2)] == [
        ["0.x", "2.x"],
        ["1.x", "3.x"],
    ]


def test_a_process_that_does_not_see_the_files_ends_all_with_one_sentence(two_processes):
    told, _ = two_processes("other", "good", "bad", "longer", "bad")
    assert told[0] == told[1] and "process 1 on" in told[0] and "does not see 2.x as the first process does" in told[0]


def test_what_the_first_process_cannot_find_ends_all(two_processes):
    told, _ = two_processes("missing", "good", "bad", "good", "bad")
    assert told == ["there is no such folder."] * 2
