"""--help of every command, usage errors, and what is imported on the way."""

import json
import os
import subprocess
import sys

import pytest
from tiny import ONE_THREAD

from autoseg.commands import convert

COMMANDS = ("plan", "pretrain", "train", "choose", "predict", "evaluate", "convert")
HEAVY = ("torch", "numpy", "SimpleITK", "scipy", "pandas", "matplotlib", "pydantic", "skimage")


def python(script: str) -> str:
    """What a script prints in a fresh interpreter, away from the checkout."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, env=os.environ | ONE_THREAD, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_for_research_use(run, command):
    done = run(command, "--help")
    assert f"usage: autoseg_{command}" in done.stdout
    assert "For research use only; not a medical device." in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["generated", "phantom", "rule", "hecktor", "nnunet-model", "export-model", "import-model", "onnx"])
def test_help_of_what_is_converted(capsys, kind):
    with pytest.raises(SystemExit) as ended:
        convert.main([kind, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "For research use only; not a medical device." in text
    # a default is told once, and only where there is one
    assert "(default: None)" not in text
    assert "(default: False)" not in text
    assert "cores) (default" not in " ".join(text.split())
    assert ("outcomes (default: 0)" in " ".join(text.split())) == (kind == "phantom")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    script = (
        "import sys, json, contextlib, io\n"
        f"from autoseg.commands.{command} import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "    try: main(['--help'])\n"
        "    except SystemExit as end: status = end.code\n"
        f"print(json.dumps([status, text.getvalue(), [name for name in {HEAVY} if name in sys.modules]]))"
    )
    status, text, heavy = json.loads(python(script))
    assert status == 0
    assert "usage:" in text
    assert heavy == []


def test_planners_pull_in_neither_torch_nor_simpleitk():
    script = (
        "import importlib, json, pkgutil, sys, planners\n"
        "names = [module.name for module in pkgutil.walk_packages(planners.__path__, 'planners.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(json.dumps([names, sorted(sys.modules)]))"
    )
    names, modules = json.loads(python(script))
    assert {"planners.plan", "planners.planner", "planners.fingerprint"} <= set(names)
    assert {"torch", "SimpleITK", "pandas", "sksurv", "skimage", "autoseg"}.isdisjoint(modules)


def test_the_package_without_its_commands_needs_no_torch():
    """Images, datasets and evaluation serve tools that have no network."""
    script = "import sys, autoseg.images, autoseg.dataset, autoseg.files, autoseg.errors, autoseg.evaluation\nprint('torch' in sys.modules)"
    assert python(script).strip() == "False"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("plan", ["--workers", "-1"], "--workers: must be"),
        ("train", ["0", "--workers", "-1"], "--workers: must be"),
        ("plan", ["--workers", "two"], "--workers: must be"),
        ("predict", ["-i", "x", "-o", "y", "--workers", "1.5"], "--workers: must be"),
        ("plan", ["--set", "nonsense"], "--set: must be KEY=VALUE, found 'nonsense'"),
        ("plan", ["--set", "=5"], "--set: must be KEY=VALUE"),
        ("train", ["0", "--set", "nonsense"], "--set: must be KEY=VALUE"),
        ("plan", ["--orientation", "upside-down"], "--orientation: invalid choice"),
        ("plan", ["--no-such-option"], "unrecognized arguments: --no-such-option"),
        ("train", [], "required: FOLD"),
        ("predict", ["-i", "x"], "required: -o/--output"),
        ("evaluate", ["only-one"], "required: PREDICTION"),
        ("evaluate", ["a", "b", "--connectivity", "7"], "--connectivity: invalid choice"),
        ("convert", [], "required: KIND"),
    ],
)
def test_usage_errors_end_with_2_and_say_which_option(run, command, arguments, message):
    done = run(command, *arguments, status=2)
    assert message in done.stderr
    assert "usage:" in done.stderr
    assert "Traceback" not in done.stderr
