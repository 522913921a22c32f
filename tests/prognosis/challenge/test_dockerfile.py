"""What can be said of the Dockerfile without building it: what it copies is there, and its entry point is one that the command knows."""

import json
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from prognosis.challenge.editions import EDITIONS
from prognosis.commands import challenge

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "prognosis" / "challenge" / "Dockerfile").read_text()


def test_what_it_copies_is_there():
    copied = [name for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert {"planners", "autoseg", "prognosis", "setup.py", "constraints.txt"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("edition", EDITIONS)
def test_its_entry_point_is_one_that_the_command_knows(edition):
    shell, flag, line = json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[1])
    assert (shell, flag) == ("/bin/sh", "-c")
    for name, value in {"EDITION": edition, "SENSE": "time", "OPTIONS": "--fallback --step 0.6"}.items():
        line = re.sub(rf'"?\${name}"?', value, line)
    words = shlex.split(line.removeprefix("exec "))
    assert words[0] == "prognosis"
    options = ArgumentParser()
    challenge.add(options.add_subparsers())
    parsed = options.parse_args(words[1:])
    assert (parsed.edition, parsed.sense, parsed.fallback, parsed.step) == (edition, "time", True, 0.6)
    assert [str(parsed.input), str(parsed.output), str(parsed.models)] == ["/input", "/output", "/opt/ml/model"]


def test_the_command_offers_the_editions_that_there_are():
    assert tuple(EDITIONS) == challenge.EDITIONS
    assert {output for edition in EDITIONS.values() for output in edition.paths} == set(challenge.OUTPUTS)
