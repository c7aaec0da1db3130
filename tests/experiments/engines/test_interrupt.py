"""Signals: the first one ends things cleanly, the second one at once."""

import signal
import subprocess
import sys
import threading

import pytest

from bdhf.experiments.engines.interrupt import interruptible, shielded

TWICE = """
import os, signal, sys
from bdhf.experiments.engines.interrupt import interruptible
first, second = (signal.Signals[name] for name in sys.argv[1:])
with interruptible():
    try:
        os.kill(os.getpid(), first)
    except KeyboardInterrupt:
        print("cleaning up", flush=True)
        os.kill(os.getpid(), second)
        print("never")
"""


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_the_process_while_it_cleans_up(first, second):
    """Nothing runs after it, not even the cleanup."""
    command = [sys.executable, "-c", TWICE, first, second]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.stdout == "cleaning up\n"
    assert done.stderr == ""
    assert done.returncode == 128 + signal.Signals[second]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_those_of_before_afterwards(number):
    """Also when a signal came between."""
    before = signal.getsignal(number)

    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)

    assert signal.getsignal(number) is before


def test_another_thread_changes_no_handler():
    """Only the main thread may; a run in another thread continues without handlers."""
    handlers = []

    def run():
        with interruptible():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_what_is_started_in_shelter_hears_no_signal_and_its_parent_hears_it_later():
    """The child inherits the block from its start; for the parent the signal is only delayed."""
    heard = []
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('still here')"
    with pytest.raises(KeyboardInterrupt), interruptible(), shielded():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        command = [sys.executable, "-c", code]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        heard.append(child.stdout)

    assert heard == ["still here\n"]
