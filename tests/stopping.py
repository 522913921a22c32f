"""Training stopped, or killed, at an iteration of a test's choosing."""

STOP_REQUEST = "autoseg.training.run.StopRequest"


class Killed(Exception):
    """In place of SIGKILL: nothing more is written."""


class Stopping:
    """A StopRequest that asks to stop, or raises, the `after`-th time that it is asked; by default never."""

    def __init__(self, after=10**9, error=None):
        self.left, self.error = after, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self):
        self.left -= 1
        if self.left == 0 and self.error:
            raise self.error
        return self.left == 0
