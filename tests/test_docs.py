"""The documentation beside the code: links, options, settings, modules and examples are what they are said to be."""

import ast
import contextlib
import importlib
import io
import json
import re
import tomllib
from pathlib import Path

import pytest

from planners.settings import check_settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
WIDTH = 150

PAGES_OF = {
    "autoseg_plan": ["planning"],
    "autoseg_train": ["training"],
    "autoseg_pretrain": ["training"],
    "autoseg_choose": ["choosing"],
    "autoseg_predict": ["prediction"],
    "autoseg_evaluate": ["evaluation", "challenge"],
    "autoseg_convert generated": [],
    "autoseg_convert phantom": [],
    "autoseg_convert rule": [],
    "autoseg_convert hecktor": ["hecktor"],
    "autoseg_convert nnunet-model": ["nnunet-models"],
    "autoseg_convert export-model": ["model-exchange"],
    "autoseg_convert import-model": ["model-exchange"],
    "autoseg_convert onnx": ["model-exchange"],
    "prognosis features": ["prognosis"],
    "prognosis fit": ["prognosis"],
    "prognosis predict": ["prognosis", "prediction"],
    "prognosis report": ["prognosis"],
    "prognosis stage": ["prognosis", "challenge"],
    "prognosis challenge": ["challenge"],
}
"""Command -> the pages that tell its options, beside commands.md."""

OTHERS = {
    *("--array", "--cpus-per-task", "--time", "--signal"),  # sbatch
    *("--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--logdir"),  # torchrun, tensorboard
    *("--build-arg", "--rm", "--network"),  # docker
    *("--c", "--val", "--npz", "--disable_tta", "--save_probabilities", "--continue_prediction", "--verify_dataset_integrity"),  # nnU-Net
}
"""Options of other programs that the pages name."""

SHORT = {"--dataset": "-d", "--configuration": "-c", "--input": "-i", "--output": "-o", "--model": "-m", "--folds": "-f"}
"""A short form that stands in a page tells the long one too."""

OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def text_of(*names):
    return "\n".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in names)


def prose(page):
    """A page without its code, line by line."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield line


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def anchors(page):
    """As GitHub makes them of headings."""
    headings = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip()) for line in prose(page) if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def options():
    """Command -> its long options."""
    found = {}
    for command in PAGES_OF:
        program, *kind = command.split()
        module = importlib.import_module("prognosis.commands.main" if program == "prognosis" else program.replace("_", ".commands."))
        found[command] = set(re.findall(r"^  (?:-\w[^,]*, )?(--[a-z][\w-]*)", help_of(module, kind), re.MULTILINE))
    return found


def help_of(module, kind):
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        module.main([*kind, "--help"])
    return text.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_anchors_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert target.startswith("https:") or linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"](docs/{page.name})" not in readme] == []


@pytest.mark.parametrize("command", PAGES_OF)
def test_every_option_is_documented(options, command):
    text = text_of("commands", *PAGES_OF[command])
    told = {"--help", *OPTION.findall(text)} | {long for long, short in SHORT.items() if re.search(rf"(?<![\w-]){short}\b", text)}
    assert options[command] - told == set()


def test_every_command_has_its_pages():
    from autoseg.commands import convert
    from prognosis.commands.main import SUBCOMMANDS

    commands = {command.split()[-1] for command in PAGES_OF}
    files = {path.stem for path in (ROOT / "autoseg" / "commands").glob("*.py")} - {"__init__", "entry", "convert_models", "several_gpus"}
    assert {f"autoseg_{name}" for name in files - {"convert"}} | set(convert._RUN) | set(SUBCOMMANDS) == commands


def test_every_option_that_is_named_exists(options):
    every = set().union(*options.values(), OTHERS)
    named = {option: page.name for page in PAGES[:-2] for option in OPTION.findall(page.read_text(encoding="utf-8"))}
    assert {option: page for option, page in named.items() if option not in every} == {}


def test_command_lines_use_options_of_their_command(options):
    wrong = []
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            for command, given in re.findall(r"\b(autoseg_convert [a-z-]+|prognosis [a-z]+|autoseg_[a-z]+)((?: [^`|&#;]*)?)", line):
                wrong += [(page.name, command, option) for option in OPTION.findall(given) if option not in options.get(command, {option})]
    assert wrong == []


def test_settings_that_are_shown_are_fields_of_the_plan():
    from autoseg.commands.entry import _setting

    parts = r"(?:training|augmentation|inference|network|pretraining|configurations|batch_size|patch_size)"
    named = re.compile(rf"(?:`|--set )({parts}[\w.]*=[^`'\s|…]+)(?![\w'…])|'({parts}[\w.]*=[^']+)'|({parts}[\w.]*='[^']+')")
    shown = {(page.name, "".join(setting)) for page in PAGES[:-2] for setting in named.findall(page.read_text(encoding="utf-8"))}
    assert len(shown) > 20
    for name, setting in sorted(shown):
        key, value = _setting(setting.replace("'", ""))
        try:
            check_settings({key: value}, preset="default", channels=["CT"], labels={"background": 0, "tumour": 1, "node": 2})
        except ValueError as error:
            pytest.fail(f"{name}: {setting}: {error}")


def test_the_architecture_names_packages_and_modules_that_are_there():
    text = text_of("architecture")
    files = [path for package in ("planners", "autoseg", "prognosis") for path in (ROOT / package).rglob("*.py")]
    present = {file.name for file in files}
    assert {name for name in re.findall(r"\b(\w+\.py)\b", text) if name not in present} == set()
    packages = {file.parent.name for file in files if file.name == "__init__.py"}
    assert {package for package in packages if package not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_can_be_read(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), code
    for code in blocks(page, "json"):
        json.loads(code)
    for code in blocks(page, "toml"):
        tomllib.loads(code)


@pytest.mark.parametrize("page", PAGES[:-1], ids=NAMES[:-1])
def test_lines_are_wrapped(page):
    assert [line for line in prose(page) if len(line) > WIDTH and not line.lstrip().startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tables_are_whole(page):
    """A row has as many bars as the row above it; a bar inside code counts too, unless it is escaped."""
    bars = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in page.read_text(encoding="utf-8").splitlines()]
    assert [line for line, (one, other) in enumerate(zip(bars, bars[1:], strict=False), start=2) if one and other and one != other] == []
