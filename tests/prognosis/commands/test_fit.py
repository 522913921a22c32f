"""prognosis fit through its command: what it writes, what it prints, and what it refuses."""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prognosis.commands.inputs import add_input_options, read_inputs
from prognosis.commands.main import main
from prognosis.models.document import read_model

HEAVY = ("torch", "numpy", "SimpleITK", "scipy", "pandas", "matplotlib", "sksurv", "sklearn")


def python(script: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_cohort(folder: Path, n: int = 60) -> None:
    """A table of two centres with HECKTOR's columns, and features beside it."""
    random = np.random.default_rng(0)
    volume = random.lognormal(2.5, 0.8, n)
    time = random.exponential(900 * np.exp(-0.8 * (np.log(volume) - 2.5))) + 1
    event = random.random(n) < 0.6
    with open(folder / "cases.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "patient", "centre", "Age", "Gender", "HPV Status", "Relapse", "RFS"])
        for k in range(n):
            age, gender = round(random.normal(60, 8)), random.integers(2)
            writer.writerow([f"c{k:02d}", f"p{k:02d}", "AB"[k % 2], age, gender, ["", 0, 1][k % 3], int(event[k]), round(time[k])])
    lines = [f"p{k:02d},{volume[k]:.6g},{random.normal():.6g}" for k in range(n)]
    (folder / "features.csv").write_text("patient,volume_total_ml,texture\n" + "\n".join(lines) + "\n")


def call(*arguments, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert ended.value.code == status


def test_fit_writes_model_evaluation_and_predictions(tmp_path, capsys):
    write_cohort(tmp_path)
    result = tmp_path / "result.json"
    call("fit", "-d", tmp_path, "--target", "rfs", "--features", tmp_path / "features.csv", "--seed", 3, "--json", result)
    told = capsys.readouterr().out
    folder = tmp_path / "autoseg-work" / "default" / "prognosis" / "rfs"
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "model.json", "predictions.csv"]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert told.splitlines()[0] == evaluation["statement"][0]
    assert "For research use only; not a medical device." in told
    assert "tumour volumes alone" in told
    assert json.loads(result.read_text())["result"]["rungs"] == evaluation["rungs"]
    assert evaluation["cohort"]["flow"][0]["patients"] == 60
    model = read_model(folder / "model.json")
    assert model.target.name == "rfs"
    assert set(model.hashes) == {"table", "features", "evaluation", "predictions"}
    assert "volume_total_ml" in model.fitted.encoder.columns
    assert not {"Relapse", "RFS", "centre", "patient"} & set(model.fitted.encoder.columns)
    assert (
        (folder / "predictions.csv")
        .read_text()
        .startswith("patient,centre,rung,fold,model,risk,probability,threshold,cut,time_days,happened\n")
    )


def test_images_that_are_not_measured_are_not_forgotten(tmp_path, capsys):
    write_cohort(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    call("fit", "-d", tmp_path, "--target", "hpv", status=2)
    error = capsys.readouterr().err
    assert "the images are not measured yet. Run: prognosis features" in error
    assert "--no-features" in error
    assert not (tmp_path / "autoseg-work").exists()


def test_features_beside_a_table_without_images_are_taken_and_said(tmp_path, caplog):
    """As cases.csv and cohort.toml are; what is measured or named, and --no-features, come before them."""
    write_cohort(tmp_path)

    def taken(*more):
        options = argparse.ArgumentParser()
        add_input_options(options)
        caplog.clear()
        with caplog.at_level("INFO"):
            return read_inputs(options.parse_args(["-d", str(tmp_path), *map(str, more)])).sources.get("features")

    assert taken() == tmp_path / "features.csv"
    assert f"{tmp_path / 'features.csv'}: taken as the patients' image features; --no-features leaves them out" in caplog.text
    assert taken("--no-features") is None
    assert not caplog.text
    named = tmp_path / "named.csv"
    named.write_bytes((tmp_path / "features.csv").read_bytes())
    assert taken("--features", named) == named
    measured = tmp_path / "autoseg-work" / "default" / "prognosis" / "features.csv"
    measured.parent.mkdir(parents=True)
    measured.write_bytes(named.read_bytes())
    assert taken() == measured


def test_a_column_that_repeats_the_outcome_stops_the_fit(tmp_path, capsys):
    write_cohort(tmp_path)
    lines = (tmp_path / "cases.csv").read_text().splitlines()
    leaky = [lines[0] + ",score", *(f"{line},{int(line.split(',')[-1]) / 30:.2f}" for line in lines[1:])]
    (tmp_path / "cases.csv").write_text("\n".join(leaky) + "\n")
    (tmp_path / "cohort.toml").write_text('[columns]\n"score" = "predictor"\n')
    call("fit", "-d", tmp_path, "--target", "rfs", status=2)
    assert "score: a cross-validated C-index of 1.000 from its values alone" in capsys.readouterr().err
    assert not (tmp_path / "autoseg-work").exists()


def test_unknown_target_and_usage(tmp_path, capsys):
    write_cohort(tmp_path)
    call("fit", "-d", tmp_path, "--target", "os", status=2)
    assert "--target os: no such target; declared are rfs, hpv" in capsys.readouterr().err
    call("fit", "-d", tmp_path, status=2)
    assert "required: --target" in capsys.readouterr().err
    call(status=2)
    assert "required: SUB" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["features", "--help"], ["predict", "--help"]])
def test_help_is_for_research_use_and_imports_nothing_heavy(arguments):
    script = (
        "import sys, json, contextlib, io\n"
        "from prognosis.commands.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        f"    try: main({arguments})\n"
        "    except SystemExit as end: status = end.code\n"
        f"print(json.dumps([status, text.getvalue(), [name for name in {HEAVY} if name in sys.modules]]))"
    )
    status, text, heavy = json.loads(python(script))
    assert status == 0
    assert text.startswith("usage: prognosis")
    assert "For research use only; not a medical device." in text
    assert heavy == []
