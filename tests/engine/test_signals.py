import os
import signal

import pytest

from engine.signals import GO_ON, STOP, Preempted, Signals


def test_a_signal_within_a_step_is_noted_and_one_between_epochs_stops_at_once():
    before = signal.getsignal(signal.SIGUSR1)
    with Signals() as signals:
        signals.at_once = False
        assert signals.agreed(signals.wish()) == GO_ON
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.seen is signal.SIGUSR1 and signals.agreed(signals.wish()) == signals.agreed_now(STOP) == STOP
        signals.at_once = True
        with pytest.raises(Preempted, match="SIGUSR2 between two epochs"):
            os.kill(os.getpid(), signal.SIGUSR2)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_second_ctrl_c_ends_all_at_once():
    with Signals() as signals:
        signals.at_once = False
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
