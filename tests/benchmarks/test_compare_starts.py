from benchmarks.compare_starts import Flags, dice_by_case, write


def test_a_case_without_any_class_leaves_the_means_of_the_others(tmp_path):
    tables = []
    for seed, dice in enumerate([("0.5", "", "0.8"), ("0.7", "", "")]):
        rows = [f"{case},{case},{value}" for case, value in zip("abc", dice)]
        (tmp_path / f"{seed}.csv").write_text("\n".join(["case,subject,dice", *rows]), encoding="utf-8")
        tables.append(tmp_path / f"{seed}.csv")
    cases = dice_by_case(tables)
    write(Flags(sets=(), output=str(tmp_path)), {("set", 2): {"random": cases}})
    line = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[-1]
    assert "| 0.700 (" in line and "| 0.650 / 0.700 |" in line
