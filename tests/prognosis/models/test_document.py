"""Models on disk: the same predictions in a fresh process that has nothing but the document, and damage that is told."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cohorts import make_cohort

from prognosis.errors import PrognosisModelError
from prognosis.models.document import PrognosisModel, read_model, write_model
from prognosis.models.pipeline import Penalty, Pipeline

TIMES = [1.0, 100.0, 333.3, 600.0, 1e6]


def write(path: Path, kind: str) -> PrognosisModel:
    cohort = make_cohort(kind)
    fitted = Pipeline(kind, tuple(cohort.groups), (), Penalty(0.25, 0.25)).fit(cohort.predictors, cohort.kinds, cohort.outcome)
    model = PrognosisModel(cohort.target, fitted, 0.4, 0.1, {"patients": 90}, {"centre": ["H0"]}, None, {"table": "0" * 64})
    write_model(path, model)
    return model


@pytest.mark.parametrize("kind", ["survival", "binary"])
def test_a_fresh_process_predicts_the_same(tmp_path, kind):
    model = write(tmp_path / "model.json", kind)
    frame = make_cohort(kind, seed=7).predictors
    (tmp_path / "frame.pickle").write_bytes(pickle.dumps(frame))  # the test's own file: JSON would round the features
    script = (
        "import json, pathlib, pickle, sys\n"
        "from prognosis.models.document import read_model\n"
        "model = read_model(pathlib.Path(sys.argv[1]) / 'model.json')\n"
        "frame = pickle.loads((pathlib.Path(sys.argv[1]) / 'frame.pickle').read_bytes())\n"
        f"told = model.fitted.survival(frame, {TIMES}) if model.target.kind == 'survival' else model.fitted.probability(frame)\n"
        "assert 'sksurv' not in sys.modules and 'sklearn' not in sys.modules\n"
        "print(json.dumps(told.tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr
    told = np.array(json.loads(done.stdout), dtype=float)
    expected = model.fitted.survival(frame, TIMES) if kind == "survival" else model.fitted.probability(frame)
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-10)
    assert np.isnan(told[:, -1]).all() if kind == "survival" else np.ptp(told) > 0.1


def test_everything_comes_back(tmp_path):
    model = write(tmp_path / "model.json", "survival")
    again = read_model(tmp_path / "model.json")
    assert again.fitted.state() == model.fitted.state()
    for name in (
        "target",
        "threshold",
        "cut",
        "training",
        "folds",
        "segmentation_saw_centre",
        "segmentation_saw_patient",
        "hashes",
        "versions",
    ):
        assert getattr(again, name) == getattr(model, name)
    assert again.versions["scikit-survival"]
    assert "not a medical device" in (tmp_path / "model.json").read_text()


def edited(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["pipeline"]["model"]["coefficients"].__setitem__(0, 9.9), "was changed after it was written"),
        (lambda d: d.pop("sha256"), "was changed after it was written"),
        (lambda d: d.update(schema="autoseg-prognosis/2"), "autoseg-prognosis/2.*expected"),
    ],
)
def test_damage_is_told(tmp_path, change, message):
    path = tmp_path / "model.json"
    write(path, "survival")
    edited(path, change)
    with pytest.raises(PrognosisModelError, match=message):
        read_model(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_model_is_told(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(PrognosisModelError, match=r"model\.json"):
        read_model(tmp_path / "model.json")


def test_an_incomplete_state_is_told():
    cohort = make_cohort()
    state = Pipeline("survival", ("age",), (), Penalty(1.0, 1.0)).fit(cohort.predictors, cohort.kinds, cohort.outcome).state()
    with pytest.raises(PrognosisModelError, match="KeyError 'baseline'"):
        Pipeline.from_state({**state, "model": {"coefficients": [0.0]}})
    with pytest.raises(PrognosisModelError, match="3 coefficients for 2 columns"):
        Pipeline.from_state({**state, "model": {**state["model"], "coefficients": [0.0, 0.0, 0.0]}})
