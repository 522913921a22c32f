"""What prognosis says where scikit-survival is missing; the missing package is simulated, so that the test runs everywhere."""

import subprocess
import sys
import types

import pytest

from autoseg.errors import AutosegError
from prognosis import SurvivalMissing, require_survival


def test_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sksurv", None)  # how Python spells "cannot be imported"
    with pytest.raises(SurvivalMissing, match="pip install scikit-survival") as caught:
        require_survival()
    assert "\n" not in str(caught.value)
    assert "3.13" in str(caught.value)
    assert isinstance(caught.value, AutosegError)
    assert isinstance(caught.value, ImportError)


def test_says_nothing_where_it_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "sksurv", types.ModuleType("sksurv"))
    assert require_survival() is None


def test_the_package_imports_without_it():
    code = "import sys; sys.modules['sksurv'] = None; import prognosis; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
