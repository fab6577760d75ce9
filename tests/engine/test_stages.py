import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# takes a second to save when it is asked to stop, as a training step does
CHILD = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(1)
    pathlib.Path("saved").touch()
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, save)
pathlib.Path("ready").touch()
time.sleep(60)
"""
PARENT = """
import sys
from engine.stages import run_child
sys.exit(run_child([sys.executable, "child.py"]))
"""


@pytest.mark.parametrize("ask", [os.kill, os.killpg])
def test_a_child_that_is_asked_to_stop_has_the_time_to_save(tmp_path, ask):
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    about = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", PARENT], **about) as parent:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        ask(parent.pid, signal.SIGTERM if ask is os.kill else signal.SIGINT)  # a scheduler, a terminal
        assert parent.wait(30) == 75
    assert (tmp_path / "saved").exists()
