"""Every bad table through the command, as a file: exit status 2, a message with the place and the remedy, and nothing written."""

import json

import pytest
from clinical import BAD_TABLES, write_table

from prognosis.commands.main import main


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def fit(capsys):
    def call(folder, *arguments, status=2):
        before = written(folder)
        with pytest.raises(SystemExit) as ended:
            main(["fit", "-d", str(folder), *map(str, arguments)])
        error = capsys.readouterr().err
        assert ended.value.code == status, error
        assert written(folder) == before
        return error

    return call


@pytest.mark.parametrize("bad", BAD_TABLES, ids=str)
def test_a_bad_table(bad, tmp_path, fit):
    bad.write(tmp_path)
    if bad.toml:
        (tmp_path / "cohort.toml").write_text(bad.toml, encoding="utf-8")
    error = fit(tmp_path, "--target", bad.target)
    assert error.startswith("error: ")
    assert all(part in error for part in bad.says), error


def test_a_table_that_knows_other_patients_than_the_images(tmp_path, fit):
    write_table(tmp_path)
    features = tmp_path / "features.csv"
    features.write_text("patient,volume_total_ml\nA-1,3.5\nA-9,4\n")
    error = fit(tmp_path, "--target", "rfs", "--features", features)
    assert "no row for 1 of 2 patients with images: A-9" in error


def test_the_error_is_in_the_json_too(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "-d", str(tmp_path), "--target", "rfs", "--json", str(tmp_path / "result.json")])
    capsys.readouterr()
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["status"] == 2
    assert "cases.csv: cannot be read: No such file" in document["error"]
