"""What is written of predictions: no number without a status for it, and nothing that could be taken for a measurement."""

import csv
import io
import json
import math

from prognosis.prediction.results import Patient, Predictions, Prognosis

TARGETS = {"rfs": {"title": "Recurrence-free survival", "kind": "survival"}, "hpv": {"title": "HPV status", "kind": "binary"}}


def predictions(folder) -> Predictions:
    told = {
        "rfs": Prognosis("ok", (), risk=0.25, high_risk=True, survival={365.0: 0.8, 1826.0: math.nan}),
        "hpv": Prognosis("degraded", ("a", "b", "c", "d", "e"), risk=-1.0, high_risk=False, probability=0.3, positive=False, measured="1"),
    }
    silent = {name: Prognosis("not_predicted", ("no tumour was found",)) for name in TARGETS}
    return Predictions(
        folder,
        (
            Patient("N-1", "Ann", folder / "masks" / "N-1.nii.gz", (), ("a note",), {"mtv_ml": 3.0}, told, 1.5),
            Patient("N-2", "N-2", folder / "masks" / "N-2.nii.gz", ("empty_mask",), (), {}, silent, 1.0),
        ),
        TARGETS,
        (365.0, 1826.0),
        {"folds": ["0"]},
    )


def test_the_spreadsheet(tmp_path):
    rows = list(csv.DictReader(io.StringIO(predictions(tmp_path).to_csv())))
    assert rows[0]["predicted_rfs_survival_365d"] == "0.8"
    assert rows[0]["predicted_rfs_survival_1826d"] == ""
    assert rows[0]["predicted_hpv_probability"] == "0.3"
    assert rows[0]["predicted_hpv_positive"] == "0"
    assert rows[0]["predicted_hpv_reasons"] == "a; b; c; and 2 more, see predictions.json"
    identifying = {"case", "patient", "mask", "notes", "use"}
    assert all(name.startswith("predicted_") for name in set(rows[0]) - identifying)
    assert "not a medical device" in rows[1]["use"]
    assert rows[1]["predicted_rfs_status"] == "not_predicted"
    numbers = [name for name in rows[1] if name.split("_")[-1] in {"risk", "365d", "1826d", "probability", "positive"}]
    assert len(numbers) >= 6
    assert [rows[1][name] for name in numbers] == [""] * len(numbers)


def test_the_document_is_standard_json(tmp_path):
    result = predictions(tmp_path)
    result.write()
    document = json.loads((tmp_path / "predictions.json").read_text())
    json.dumps(document, allow_nan=False)
    assert document["schema"] == "autoseg-predictions/1"
    assert "not a medical device" in document["use"]
    first, second = document["patients"]
    assert first["predicted"]["rfs"]["survival"] == {"365": 0.8, "1826": None}
    assert first["predicted"]["hpv"]["reasons"] == ["a", "b", "c", "d", "e"]
    assert second["predicted"]["rfs"]["risk"] is None
    assert second["predicted"]["rfs"]["survival"] is None


def test_the_text_puts_the_measured_value_above_the_predicted_one(tmp_path):
    text = predictions(tmp_path).text()
    assert "measured: 1 (that stands" in text
    assert "Recurrence-free survival: not predicted" in text
    assert "high risk, 0.80 at 1 y" in text
    assert text.endswith("not a medical device.")
