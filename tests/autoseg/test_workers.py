import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from autoseg.errors import CasesFailed, ImageError, ResourceError, WorkerError
from autoseg.workers import ONE_THREAD, Outcome, map_cases
from autoseg.workers.scratch import remove_abandoned, scratch_folder

ROOT = Path(__file__).parents[2]


def names(count: int) -> list[str]:
    return [f"case_{index}" for index in range(count)]


def by_name(outcomes) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("workers", [0, 2])
def test_values_and_errors_of_every_case_come_back(workers):
    def work(item):
        if item == 1:
            raise ImageError("case case_1: broken")
        if item == 2:
            return {}["absent"]
        return item * 10

    found = by_name(map_cases(work, range(4), workers=workers, names=names(4)))
    assert sorted(found) == names(4)
    assert (found["case_0"].value, found["case_3"].value) == (0, 30)
    assert type(found["case_1"].error) is ImageError
    assert str(found["case_1"].error) == "case case_1: broken"
    assert type(found["case_2"].error) is WorkerError
    for part in ("case case_2", "KeyError", "in work", 'return {}["absent"]'):
        assert part in str(found["case_2"].error)
    assert all(outcome.value is None for outcome in found.values() if outcome.error)


def test_no_worker_means_this_process():
    assert [outcome.value for outcome in map_cases(lambda _: os.getpid(), [0], workers=0, names=["a"])] == [os.getpid()]


def test_workers_are_other_processes_with_one_compute_thread():
    def work(_):
        return os.getpid(), {name: os.environ.get(name) for name in ONE_THREAD}

    ((process, environment),) = [outcome.value for outcome in map_cases(work, [0], workers=1, names=["a"])]
    assert process != os.getpid()
    assert set(environment.values()) == {"1"}


def test_nothing_to_do():
    assert list(map_cases(abs, [], workers=2, names=[])) == []


def test_arguments_are_checked_before_anything_runs():
    with pytest.raises(ValueError, match="shorter|longer"):
        map_cases(abs, [1, 2], workers=0, names=["a"])
    with pytest.raises(ValueError, match="0 or more"):
        map_cases(abs, [1], workers=-1, names=["a"])


def test_a_case_that_kills_its_process_is_named_and_the_others_are_done(tmp_path):
    def work(item):
        time.sleep(0.1)
        if item == 2:
            with open(tmp_path / "tries", "a") as tries:
                tries.write("x")
            held = bytearray(300 << 20)
            held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
            time.sleep(1.0)
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = by_name(map_cases(work, range(6), workers=2, names=names(6)))
    error = found.pop("case_2").error
    assert {outcome.value for outcome in found.values()} == {0, 1, 3, 4, 5}
    assert type(error) is WorkerError
    assert "case case_2" in str(error)
    assert "SIGKILL (probably by the system, for lack of memory)" in str(error)
    held = float(str(error).split("it held ")[1].split(" GiB")[0])
    assert 0.29 < held < 0.6
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_case_that_dies_once_succeeds_when_tried_again_alone(tmp_path):
    def work(item):
        if item == 0 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = by_name(map_cases(work, range(3), workers=2, names=names(3)))
    assert {name: outcome.value for name, outcome in found.items()} == {"case_0": 0, "case_1": 1, "case_2": 2}
    assert not any(outcome.error for outcome in found.values())


def test_half_the_workers_after_a_death(tmp_path):
    def work(item):
        died, processes = tmp_path / "died", tmp_path / "processes"
        if not died.exists():
            (processes / str(os.getpid())).touch()
            while item == 0 and len(list(processes.iterdir())) < 4:
                time.sleep(0.05)
            if item == 0:
                died.write_text(" ".join(path.name for path in processes.iterdir()))
                os.kill(os.getpid(), signal.SIGKILL)
            while not died.exists():
                time.sleep(0.05)
        time.sleep(0.3)
        return os.getpid()

    (tmp_path / "processes").mkdir()
    found = by_name(map_cases(work, range(12), workers=4, names=names(12)))
    assert len(found) == 12
    before = {int(process) for process in (tmp_path / "died").read_text().split()}
    alone = found.pop("case_0").value
    after = {outcome.value for outcome in found.values()} - before
    assert len(before) == 4
    assert 1 <= len(after) <= 2
    assert alone not in after | before


@pytest.mark.parametrize(("status", "expected"), [(0, "exit status 0"), (3, "exit status 3")])
def test_a_process_that_leaves_by_itself(status, expected):
    (outcome,) = map_cases(lambda _: os._exit(status), [0], workers=1, names=["a"])
    assert type(outcome.error) is WorkerError
    assert expected in str(outcome.error)


def test_processes_that_die_before_they_start_a_case_end_the_work(monkeypatch):
    monkeypatch.setattr("autoseg.workers.pool.start_worker", lambda parent: os._exit(4))
    outcomes = list(map_cases(abs, [1, 2, 3], workers=2, names=names(3)))
    assert {outcome.name for outcome in outcomes} == set(names(3))
    assert all(isinstance(outcome.error, WorkerError) and "keep dying" in str(outcome.error) for outcome in outcomes)


def test_a_result_or_error_that_cannot_be_sent_is_an_error_of_its_case():
    def work(item):
        if item == 0:
            return (value for value in range(3))
        if item == 1:
            raise CasesFailed(["one", "two"], 3)
        return item

    found = by_name(map_cases(work, range(3), workers=1, names=names(3)))
    assert "pickle" in str(found["case_0"].error)
    assert "2 cases failed" in str(found["case_1"].error)
    assert found["case_2"].value == 2


def test_an_item_that_cannot_be_sent_is_an_error_of_its_case():
    found = by_name(map_cases(abs, [-1, (value for value in range(3)), -2], workers=1, names=names(3)))
    assert "pickle" in str(found["case_1"].error)
    assert (found["case_0"].value, found["case_2"].value) == (1, 2)


def test_no_room_for_results_on_their_way(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(ResourceError, match="TMPDIR"):
        list(map_cases(abs, [1], workers=1, names=["a"]))


def test_outcomes_stream_and_a_slow_taker_holds_the_work_back(tmp_path):
    def work(item):
        (tmp_path / str(item)).touch()
        return bytes(1 << 20)

    workers, taken = 2, 0
    for _ in map_cases(work, range(20), workers=workers, names=names(20)):
        taken += 1
        time.sleep(0.05)
        assert len(list(tmp_path.iterdir())) <= taken + 2 * workers
    assert taken == 20


def test_leaving_early_ends_the_processes():
    outcomes = map_cases(lambda item: time.sleep(60 if item else 0), range(4), workers=2, names=names(4))
    before = time.monotonic()
    assert next(outcomes).name == "case_0"
    outcomes.close()
    assert time.monotonic() - before < 30
    assert not [child for child in psutil.Process().children(recursive=True) if "loky" in " ".join(child.cmdline()) and _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    return "resource_tracker" not in " ".join(process.cmdline())


SCRIPT = """
    import os, signal, sys, time
    from autoseg.workers import map_cases

    def work(item):
        time.sleep(300)

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background of a shell ignores Ctrl-C
        print("started", flush=True)
        try:
            for outcome in map_cases(work, range(4), workers=2, names="abcd"):
                pass
        except KeyboardInterrupt:
            sys.exit(130)
"""


@pytest.fixture
def busy_command(tmp_path):
    """A command whose two workers sleep, and its children."""
    script = tmp_path / "command.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = subprocess.Popen([sys.executable, script], env=environment, start_new_session=True, stderr=subprocess.PIPE)
    process = psutil.Process(command.pid)
    try:
        deadline = time.monotonic() + 60
        while len([child for child in process.children(recursive=True) if _is_worker(child)]) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        yield command, process.children(recursive=True)
    finally:
        command.stderr.close()
        if command.poll() is None:
            command.kill()
        command.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals; runs on Linux and macOS")
def test_ctrl_c_ends_command_and_workers(busy_command):
    command, children = busy_command
    assert len(children) >= 2
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait(timeout=30) == 130
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals; runs on Linux and macOS")
def test_what_a_killed_command_leaves(busy_command, tmp_path):
    command, children = busy_command
    assert len(children) >= 2
    (left,) = tmp_path.glob("autoseg-workers-*")
    elsewhere = tmp_path / left.name.replace(left.name.split("-")[2], "0" * 8)
    for kept in (elsewhere, tmp_path / "autoseg-workers-of-an-older-release"):
        kept.mkdir()
    assert remove_abandoned(tmp_path) == [], "its process lives"
    command.send_signal(signal.SIGKILL)
    command.wait(timeout=10)
    assert psutil.wait_procs(children, timeout=15)[1] == [], "workers end with it"
    (left / "9.result").touch()
    assert remove_abandoned(tmp_path) == [left]
    assert not left.exists()
    assert elsewhere.exists()


def test_a_run_removes_what_killed_ones_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as own:
        other = Path(own.replace(f"-{os.getpid()}-", "-4194305-"))  # above the largest process id that Linux gives
        other.mkdir()
        (other / "0.result").touch()
        with scratch_folder():
            assert not other.exists()
            assert Path(own).exists()
