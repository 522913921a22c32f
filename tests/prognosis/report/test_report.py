"""The page: what it says first, what it must not hold, and that nothing in it is fetched."""

import argparse
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from cohorts import make_cohort

from autoseg import files
from autoseg.dataset.workspace import Workspace
from autoseg.report import html
from prognosis.commands import report as command
from prognosis.errors import PrognosisModelError
from prognosis.features import masks
from prognosis.features.table import FeatureTable
from prognosis.report import report
from prognosis.report.report import write_report
from prognosis.report.target import _short
from prognosis.validation.nested import evaluate

VOID = {"meta", "img", "br"}


class Checked(HTMLParser):
    """Every element is closed by its own end tag."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    found = Workspace.of(tmp_path_factory.mktemp("data"))
    for kind, saw in (("survival", False), ("binary", True)):
        cohort = make_cohort(kind, n=72, centres=3, prevalence_shift=0.6)
        evaluation = evaluate(cohort, resamples=20, segmentation_saw_centre=saw, segmentation_saw_patient=not saw)
        folder = found.root / found.name / "prognosis" / cohort.target.name
        files.write_json(folder / "evaluation.json", evaluation.to_json())
        files.write_text(folder / "predictions.csv", evaluation.predictions_csv())
    return found


def written(workspace, path, **options):
    write_report(path, workspace, None, **options)
    return path.read_text(encoding="utf-8")


def test_several_targets_are_asked_for_at_once_or_one_by_one():
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    assert parser.parse_args(["report", "--target", "rfs", "hpv", "--target", "os"]).target == ["rfs", "hpv", "os"]
    assert parser.parse_args(["report"]).target == []


def test_the_page_is_whole_and_fetches_nothing(workspace, tmp_path):
    page = written(workspace, tmp_path / "report.html")
    checked = Checked()
    checked.feed(page)
    assert checked.open == []
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "@import" not in page
    assert "<script" not in page
    assert page.count("research use only") >= 2


def test_what_stands_in_the_way_of_a_conclusion_comes_first(workspace, tmp_path):
    for target, said in (("rfs", "segmentation_saw_patient: true"), ("hpv", "segmentation_saw_centre: true")):
        page = written(workspace, tmp_path / "report.html", targets=[target])
        first = page.index('class="first warn"')
        assert said in page[first : first + 900]
    assert page.index("HPV status") < first < page.index("What was asked") < page.index("Cohort flow") < page.index("Model beside controls")
    assert page.index("Model beside controls") < page.index("What could not be concluded")
    assert "the centre alone (a control)" in page


def test_no_patient_is_in_the_page_unless_asked_for(workspace, tmp_path):
    assert not re.search(r"P00\d\d", written(workspace, tmp_path / "a.html"))
    page = written(workspace, tmp_path / "b.html", with_patients=True, targets=["rfs"])
    assert len(set(re.findall(r"P00\d\d", page))) == 72


def test_names_are_escaped(workspace):
    assert html.table(("<b>",), [("a & b",)]).count("&lt;b&gt;") == 1
    assert "a &amp; b" in html.table(("x",), [("a & b",)])


def test_negative_bounds_can_be_read():
    assert _short({"value": -0.03, "low": -0.06, "high": -0.01}) == "-0.03 (-0.06 to -0.01)"
    assert _short({"value": 0.65, "low": 0.61, "high": 0.69}) == "0.65 (0.61–0.69)"


def test_the_same_documents_give_the_same_page(workspace, tmp_path):
    assert written(workspace, tmp_path / "a.html") == written(workspace, tmp_path / "b.html")


def test_the_masks_shown_are_those_that_were_measured(workspace, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(masks, "out_of_fold_masks", lambda dataset, workspace, configuration: shown.append(configuration))
    monkeypatch.setattr(report, "segmentation_parts", lambda *arguments: [])
    features = workspace.root / workspace.name / "prognosis" / "features.csv"
    for options in ({}, {"configuration": "2d"}):
        write_report(tmp_path / "r.html", workspace, object(), **options)
    table = FeatureTable(pd.DataFrame({"volume_total_ml": [1.0]}, index=pd.Index(["p"], name="patient")), configuration="3d_lowres")
    table.write(features)
    for options in ({}, {"configuration": "2d"}):
        write_report(tmp_path / "r.html", workspace, object(), **options)
    features.unlink()
    assert shown == [None, "2d", "3d_lowres", "2d"]


def test_nothing_fitted_and_a_document_of_another_schema_are_told(workspace, tmp_path):
    with pytest.raises(PrognosisModelError, match="--target os: is not fitted; fitted: hpv, rfs. Run: prognosis fit --target os"):
        write_report(tmp_path / "r.html", workspace, None, ["os"])
    # what prognosis stage leaves beside them is no target
    for name in ("evaluation.json", "stage.json"):
        files.write_json(workspace.root / "default" / "prognosis" / "t-stage" / name, {"schema": "other/1"})
    assert write_report(tmp_path / "with-stages.html", workspace, None) == ("hpv", "rfs")
    with pytest.raises(PrognosisModelError, match="no target is fitted yet.*prognosis fit"):
        write_report(tmp_path / "r.html", Workspace.of(tmp_path), None)
    files.write_json(tmp_path / "autoseg-work" / "default" / "prognosis" / "rfs" / "evaluation.json", {"schema": "other/1"})
    with pytest.raises(PrognosisModelError, match="is no evaluation of this release"):
        write_report(tmp_path / "r.html", Workspace.of(tmp_path), None)
    assert not (tmp_path / "r.html").exists()
