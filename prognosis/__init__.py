"""prognosis: recurrence-free survival and HPV status from masks and images. For research use only; not a medical device.

The package imports without scikit-survival: whatever needs it calls `require_survival` first.
"""

from __future__ import annotations

from importlib import import_module

from autoseg.errors import AutosegError

__all__ = ["SurvivalMissing", "require_survival"]


class SurvivalMissing(AutosegError, ImportError):
    """scikit-survival, which `prognosis` needs, cannot be imported."""


def require_survival() -> None:
    """Returns where scikit-survival can be imported.

    Raises:
        SurvivalMissing: it cannot; the message is one line that says what to install.
    """
    try:
        import_module("sksurv")
    except ImportError as error:
        raise SurvivalMissing(
            "prognosis needs scikit-survival: pip install scikit-survival "
            "(from Python 3.13 on its dependency ecos has no wheel and needs a C compiler; Python 3.11 and 3.12 need none)"
        ) from error
