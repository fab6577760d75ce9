import os
import signal

import pytest

from engine.errors import speaking_to_people
from engine.signals import GO_ON, STOP, Preempted, Signals


@pytest.fixture
def signals():
    signals = Signals()
    yield signals
    signals.release()


def test_a_signal_within_a_step_is_noted_and_one_between_epochs_stops_at_once(signals):
    signals.at_once, signals.where = False, "between two epochs"
    assert signals.agreed(signals.wish()) == GO_ON
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signals.seen is signal.SIGUSR1 and signals.agreed(signals.wish()) == signals.agreed_now(STOP) == STOP
    with pytest.raises(Preempted, match="SIGUSR1 between two epochs"):
        signals.at_once = True
    os.kill(os.getpid(), signal.SIGUSR2)  # disturbs nothing that is done after that


def test_signals_are_given_back_also_those_of_a_run_that_did_not():
    before = signal.getsignal(signal.SIGUSR1)
    Signals()
    later = Signals()
    later.release()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_second_ctrl_c_ends_all_at_once(signals):
    signals.at_once = False
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_while_a_file_is_read_is_no_fault_of_the_file(signals, capsys):
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            raise ValueError("the file cannot be read") from None
    assert stop.value.code == 75
    assert capsys.readouterr().err == "stopped by SIGTERM before the first step; the same command goes on.\n"


def test_what_would_be_lost_all_the_same_is_asked_when_the_signal_comes():
    signals = Signals(unsaved=lambda: True)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.seen is signal.SIGTERM
    signals.release()
