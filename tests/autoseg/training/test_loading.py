"""Deaths of loader processes; what they make is in test_batches."""

import pytest

from autoseg.errors import WorkerError
from autoseg.training.interrupt import Stopped
from autoseg.training.loading import loader_deaths

KILLED = "DataLoader worker (pid 4711) is killed by signal: Killed. "
GONE = "DataLoader worker (pid(s) 4711) exited unexpectedly"


@pytest.mark.parametrize("text", [KILLED, GONE])
def test_a_dead_loader_process_is_a_worker_error_that_says_what_to_do(text):
    with pytest.raises(WorkerError, match=r"4711.*memory.*--workers 0.*checkpoint"), loader_deaths(lambda: False):
        raise RuntimeError(text)


def test_a_loader_process_that_dies_while_stopping_is_a_stop():
    with pytest.raises(Stopped, match="checkpoint"), loader_deaths(lambda: True):
        raise RuntimeError(KILLED)


def test_other_errors_pass_unchanged():
    for error in (RuntimeError("shape mismatch"), ValueError(KILLED)):
        with pytest.raises(type(error)) as caught, loader_deaths(lambda: True):
            raise error
        assert caught.value is error
