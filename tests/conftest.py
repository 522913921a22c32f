"""What several parts' tests share: the installed commands, and small datasets of real files."""

import logging
import os
import subprocess
from pathlib import Path

import pytest
from tiny import ONE_THREAD, QUICK, TinyDataset, command_line


@pytest.fixture(autouse=True)
def no_handler_left_behind():
    """A command that runs in this process logs to the standard error of its test, which is closed when the next test logs."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def run():
    """run("plan", "-d", folder) -> the finished process; `status` is what it must end with."""

    def call(name, *arguments, status=0, cwd=None, timeout=600, **keywords):
        done = subprocess.run(
            command_line(name, *arguments),
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env=os.environ | ONE_THREAD,
            check=False,
            **keywords,
        )
        assert done.returncode == status, f"{name} {arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def tiny(tmp_path) -> TinyDataset:
    return TinyDataset(tmp_path / "Tiny")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run) -> TinyDataset:
    """A planned dataset with fold 0 shortly trained; tests must not write into it."""
    dataset = TinyDataset(tmp_path_factory.mktemp("trained") / "Tiny")
    run("plan", "-d", dataset.folder, "--preset", "laptop", "--workers", 0)
    run("train", 0, "-d", dataset.folder, *QUICK, "--workers", 0)
    return dataset


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets; a test that needs them is skipped where they are not."""
    folder = Path(os.environ.get("AUTOSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}; set AUTOSEG_DATA to the folder that holds msd_hippocampus, sts_petct_petgrid, ...")
    return folder
