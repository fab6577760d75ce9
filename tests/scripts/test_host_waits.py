import re
from pathlib import Path

import pytest

from tests.scripts.conftest import run


@pytest.mark.slow
def test_no_step_of_any_script_waits_for_the_device(data, tmp_path):
    done = run(Path(__file__).with_name("host_waits.py"), data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(re.findall(r"^((?:ssl|mask)_\w+): \[(.*)\]$", done.stdout, re.MULTILINE))
    assert len(found) == 6
    for script, waits in found.items():
        # the pieces of the position bias are for CPUs alone
        assert not [wait for wait in waits.split("', '") if wait and "models/position_bias.py" not in wait], (script, waits)
    # a choice by a mask and a number read are both seen, on one line of the same file
    assert "control: 3.0 2" in done.stdout
