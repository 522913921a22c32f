"""When a model may speak about a patient: each way of having no support, with the model's own encoder."""

import numpy as np
import pandas as pd
import pytest

from prognosis.features.feature import EMPTY_MASK, NO_NODES, NO_PET, NO_PRIMARY, PET_NOT_SUV
from prognosis.features.support import judge
from prognosis.models.pipeline import Penalty, Pipeline
from prognosis.outcomes import Labels

COLUMNS = {"volume_total_ml": "numeric", "suvmax_gtvp": "numeric", "suvmax_gtvn": "numeric", "Age": "numeric", "Gender": "categorical"}


@pytest.fixture(scope="module")
def fitted():
    """Ages 40 to 80, volumes 10 to 30 ml, SUVmax 5 to 15; nodal SUV is missing in every third patient."""
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "volume_total_ml": np.linspace(10, 30, n),
            "suvmax_gtvp": np.linspace(5, 15, n),
            "suvmax_gtvn": np.where(np.arange(n) % 3 == 0, np.nan, np.linspace(4, 9, n)),
            "Age": np.linspace(40, 80, n),
            "Gender": np.array(["F", "M"] * (n // 2), dtype=object),
        }
    )
    return Pipeline("binary", tuple(COLUMNS), (), Penalty(1.0, 1.0)).fit(frame, COLUMNS, Labels(rng.uniform(size=n) < 0.5))


def judged(fitted, flags=(), **changes):
    usual = {"volume_total_ml": 20.0, "suvmax_gtvp": 10.0, "suvmax_gtvn": 6.0, "Age": 60.0, "Gender": "F"}
    frame = pd.DataFrame({name: pd.Series([value]) for name, value in (usual | changes).items()})
    return judge(fitted, frame, [flags])[0]


def test_a_usual_patient(fitted):
    assert judged(fitted).status == "ok"
    assert judged(fitted).reasons == ()


def test_no_node_is_usual_where_training_had_such(fitted):
    assert judged(fitted, (NO_NODES,), suvmax_gtvn=np.nan).status == "ok"


@pytest.mark.parametrize(
    ("flags", "changes", "told"),
    [
        ((EMPTY_MASK,), {"volume_total_ml": np.nan, "suvmax_gtvp": np.nan, "suvmax_gtvn": np.nan}, "no tumour was found"),
        ((PET_NOT_SUV,), {"suvmax_gtvp": np.nan, "suvmax_gtvn": np.nan}, "not in SUV"),
        ((NO_PET,), {"suvmax_gtvp": np.nan, "suvmax_gtvn": np.nan}, "no PET image"),
        ((), {"volume_total_ml": 51.0}, "volume_total_ml is 51, far from"),
        ((), {"Age": -1.0}, "Age is -1, far from"),
        ((), {"Age": np.nan, "suvmax_gtvp": np.nan, "Gender": None}, "3 of the model's 5 columns have no value"),
    ],
)
def test_no_number_is_told(fitted, flags, changes, told):
    found = judged(fitted, flags, **changes)
    assert found.status == "not_predicted"
    assert told in found.reasons[0]


@pytest.mark.parametrize(
    ("flags", "changes", "told"),
    [
        ((NO_PRIMARY,), {"suvmax_gtvp": np.nan}, "no primary tumour"),
        ((), {"Age": 90.0}, "Age is 90"),
        ((), {"Age": np.nan}, "Age is missing"),
        ((), {"Gender": "X"}, "Gender is X"),
    ],
)
def test_what_training_did_not_show_is_told_beside_the_number(fitted, flags, changes, told):
    found = judged(fitted, flags, **changes)
    assert found.status == "degraded"
    assert any(told in reason for reason in found.reasons)


def test_images_do_not_matter_to_a_clinical_model():
    frame = pd.DataFrame({"Age": np.linspace(40, 80, 20)})
    fitted = Pipeline("binary", ("Age",), (), Penalty(1.0, 1.0)).fit(frame, {"Age": "numeric"}, Labels(np.arange(20) % 2 == 0))
    assert judge(fitted, frame[:1], [(EMPTY_MASK, PET_NOT_SUV, NO_PRIMARY)])[0].status == "ok"


def test_a_row_does_not_speak_for_another(fitted):
    rows = [{"volume_total_ml": v, "suvmax_gtvp": 10.0, "suvmax_gtvn": 6.0, "Age": 60.0, "Gender": "F"} for v in (20.0, 500.0, 20.0)]
    statuses = [j.status for j in judge(fitted, pd.DataFrame(rows), [(), (), (EMPTY_MASK,)])]
    assert statuses == ["ok", "not_predicted", "not_predicted"]
