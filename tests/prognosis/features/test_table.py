"""features.csv and features.json: what is written is what is read, and what cannot be a table is told by row and column."""

import json

import numpy as np
import pandas as pd
import pytest

from prognosis.errors import FeatureError
from prognosis.features.table import FeatureTable, MaskOrigin


def a_table() -> FeatureTable:
    frame = pd.DataFrame(
        {"volume_total_ml": [1 / 3, np.nan], "dmax_mm": [1e-300, np.nan]}, index=pd.Index(["P-1", "Ü, 2"], name="patient", dtype=object)
    )
    return FeatureTable(
        frame,
        flags={"Ü, 2": ("empty_mask", "pet_not_suv")},
        masks={"P-1": MaskOrigin("P-1", "0", True, "ab"), "Ü, 2": MaskOrigin("scan", "1", False, "cd")},
        unmeasured={"P-3": "no mask"},
        segmentation_saw_centre=True,
        segmentation_saw_patient=True,
        scheme="cv5",
        configuration="3d_fullres",
        labels={"GTVp": "tumour"},
        notes=("a note",),
    )


def test_the_round_trip_keeps_every_bit(tmp_path):
    table = a_table()
    table.write(tmp_path / "features.csv")
    read = FeatureTable.read(tmp_path / "features.csv")
    pd.testing.assert_frame_equal(read.frame, table.frame, check_exact=True)
    fields = ("flags", "masks", "unmeasured", "segmentation_saw_centre", "segmentation_saw_patient", "scheme", "configuration", "labels")
    for name in (*fields, "notes"):
        assert getattr(read, name) == getattr(table, name), name
    assert read.groups() == {"volume_total_ml": "volume", "dmax_mm": "image"}


def test_a_table_of_the_first_releases_does_not_tell_of_cascades(tmp_path):
    a_table().write(tmp_path / "features.csv")
    document = json.loads((tmp_path / "features.json").read_text())
    del document["segmentation_saw_patient"]
    (tmp_path / "features.json").write_text(json.dumps(document))
    read = FeatureTable.read(tmp_path / "features.csv")
    assert (read.segmentation_saw_centre, read.segmentation_saw_patient) == (True, None)


def test_the_document_defines_its_columns(tmp_path):
    a_table().write(tmp_path / "features.csv")
    document = json.loads((tmp_path / "features.json").read_text())
    assert document["schema"] == "autoseg-features/1"
    assert "not a medical device" in document["use"]
    assert document["definitions"]["volume_total_ml"]["unit"] == "ml"
    assert document["definitions"]["volume_total_ml"]["ibsi"] == "YEKZ"


def test_a_changed_table_no_longer_says_where_its_masks_are_from(tmp_path):
    path = tmp_path / "features.csv"
    a_table().write(path)
    path.write_text(path.read_text().replace("0.333", "0.444"))
    read = FeatureTable.read(path)
    assert read.segmentation_saw_centre is None
    assert read.masks == {}
    assert "was changed" in read.notes[0]


def test_a_table_made_elsewhere_with_byte_order_mark(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("patient,my_feature\nA,1.5\nB,\n", encoding="utf-8-sig")
    read = FeatureTable.read(path)
    assert read.patients == ("A", "B")
    assert read.frame["my_feature"].tolist()[0] == 1.5
    assert np.isnan(read.frame["my_feature"].tolist()[1])
    assert read.groups() == {"my_feature": "image"}
    assert "unknown" in read.notes[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,volume\nA,1\n", "'patient'"),
        ("patient,volume,volume\nA,1,2\n", "column 'volume' stands twice"),
        ("patient,volume\nA,1\nA,2\n", "row 3: the patient A stands here for the second time"),
        ("patient,volume\n,1\n", "row 2: has no patient"),
        ("patient,volume\nA,1\nB,big\n", "row 3, column volume: .*'big'"),
        ("patient,volume\nA,inf\n", "row 2, column volume: .*'inf'"),
        ("patient,volume\nA,1,5\n", "row 2: has 3 fields"),
        ("", "found: nothing"),
    ],
)
def test_what_is_no_table(tmp_path, text, told):
    path = tmp_path / "features.csv"
    path.write_text(text)
    with pytest.raises(FeatureError, match=told) as caught:
        FeatureTable.read(path)
    assert str(path) in str(caught.value)


def test_no_file_says_how_to_make_one(tmp_path):
    with pytest.raises(FeatureError, match="prognosis features"):
        FeatureTable.read(tmp_path / "features.csv")


def test_a_foreign_document_is_refused(tmp_path):
    a_table().write(tmp_path / "features.csv")
    (tmp_path / "features.json").write_text('{"schema": "other/1"}')
    with pytest.raises(FeatureError, match="autoseg-features/1"):
        FeatureTable.read(tmp_path / "features.csv")
