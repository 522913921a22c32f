"""Calls of the operating system that fail when a test wants them to."""

import errno
import os

from autoseg import files


class FailingCalls:
    """Counts calls of os.open, os.write, os.fsync and os.replace and makes the N-th of them fail."""

    def __init__(self, monkeypatch, fail_at, number=errno.ENOSPC, exception=None):
        self.count = 0
        self.failed = None
        for name in ("open", "write", "fsync", "replace"):
            original = getattr(os, name)

            def call(*args, _original=original, _name=name, **kwargs):
                self.count += 1
                if self.count == fail_at:
                    self.failed = _name
                    raise exception or OSError(number, os.strerror(number))
                return _original(*args, **kwargs)

            monkeypatch.setattr(files.os, name, call)
