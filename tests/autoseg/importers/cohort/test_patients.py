import dataclasses

import numpy as np
import pytest
from scipy.special import expit

from autoseg.errors import DatasetError
from autoseg.importers.cohort.centres import CENTRES, first_centres
from autoseg.importers.cohort.patients import (
    FOLLOW_UP_DAYS,
    LOG_MTV_DEVIATION,
    MAX_NODES,
    MEAN_LOSS_DAYS,
    REFERENCE,
    WEIBULL_SCALE_DAYS,
    WEIBULL_SHAPE,
    simulate,
)

THREE = first_centres(3)


@pytest.fixture(scope="module")
def many():
    return simulate(20_000, THREE, seed=5)


def arrays(patients):
    fields = {field.name: getattr(patients, field.name) for field in dataclasses.fields(patients)}
    return {name: value for name, value in fields.items() if isinstance(value, np.ndarray)} | patients.missing | patients.errors


def test_a_patient_is_the_same_however_many_others_there_are(many):
    few = arrays(simulate(30, THREE, seed=5))
    for name, values in arrays(many).items():
        assert np.array_equal(few[name], values[:30]), name
    assert many.names[:3] == ["SUD-001", "NOR-002", "EST-003"]


def test_seeds_and_streams_are_different_people(many):
    for other in (simulate(200, THREE, seed=6), simulate(200, THREE, seed=5, stream=1)):
        assert abs(np.corrcoef(other.age, many.age[:200])[0, 1]) < 0.3
    assert simulate(2, THREE, seed=5, stream=1).names == ["SUD-1001", "NOR-1002"]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_centres_share_the_patients_by_weight_in_any_part_of_the_cohort(count):
    centres = first_centres(count)
    weights = np.array([centre.weight for centre in centres])
    for n in (30, 500):
        found = np.bincount(simulate(n, centres, seed=1).centre, minlength=count)
        assert np.abs(found - n * weights / weights.sum()).max() < 2.5


@pytest.mark.parametrize("count", [0, 11])
def test_there_are_ten_centres(count):
    assert len(CENTRES) == 10
    with pytest.raises(DatasetError, match=f"--centres {count}: .* 1 to 10"):
        first_centres(count)


def test_relapses_follow_the_stated_hazard(many):
    """Events less cumulative hazard is a martingale: its mean is 0 overall and against any function of the covariates."""
    cumulative = np.exp(many.log_hazard) * ((many.time_days - 0.5) / WEIBULL_SCALE_DAYS) ** WEIBULL_SHAPE
    residual = many.event - cumulative
    for weight in (1.0, many.log_hazard, many.hpv, many.node_count, np.log(many.mtv_ml), many.age - 61, many.centre == 0):
        product = residual * weight
        assert abs(product.mean()) < 4 * product.std() / len(many) ** 0.5


def test_hpv_follows_the_stated_odds(many):
    residual = many.hpv - expit(many.hpv_logit)
    for weight in (1.0, many.hpv_logit, many.texture, many.tobacco, many.centre == 1):
        product = residual * weight
        assert abs(product.mean()) < 4 * product.std() / len(many) ** 0.5


def test_censoring_depends_on_nothing(many):
    """Censorings less their cumulative hazard, which is that of the study's end and of losses alone, are a martingale too."""
    (first, last), time = FOLLOW_UP_DAYS, many.time_days - 0.5
    cumulative = time / MEAN_LOSS_DAYS - np.log1p(-np.clip((time - first) / (last - first), 0, 1 - 1e-4))
    residual = ~many.event - cumulative
    for weight in (1.0, many.log_hazard, many.age - 61, many.hpv, many.centre == 0):
        product = residual * weight
        assert abs(product.mean()) < 4 * product.std() / len(many) ** 0.5


def test_the_reference_is_the_populations_mean(many):
    log_mtv = np.log(many.mtv_ml)
    assert log_mtv.mean() == pytest.approx(REFERENCE["log_mtv"], abs=0.02)
    assert log_mtv.std() == pytest.approx(LOG_MTV_DEVIATION, abs=0.02)
    for name in ("tobacco", "alcohol", "m_stage", "node_count", "age"):
        tolerance = 0.15 if name == "age" else 0.02
        assert getattr(many, name).mean() == pytest.approx(REFERENCE[name], abs=tolerance), name


def test_events_are_neither_rare_nor_the_rule(many):
    assert 0.3 < many.event.mean() < 0.4
    assert many.time_days.min() >= 1


def test_lesions(many):
    assert set(many.node_count) == set(range(MAX_NODES + 1))
    assert 0.15 < (many.node_count == 0).mean() < 0.19
    assert np.array_equal((many.node_ml > 0).sum(axis=1), many.node_count)
    row = int(np.flatnonzero(many.node_count == 2)[0])
    tumours = many.tumours(row)
    assert len(tumours.ml) == len(tumours.suv) == len(tumours.core) == 3
    hollow = [volume * (1 - core**3) for volume, core in zip(tumours.ml, tumours.core, strict=True)]
    assert sum(hollow) == pytest.approx(many.mtv_ml[row])


def test_centres_differ_in_prevalence_and_in_what_they_ask(many):
    prevalence = [many.hpv[many.centre == centre].mean() for centre in range(3)]
    assert prevalence[1] - prevalence[0] > 0.25
    for group, missing in many.missing.items():
        for number, centre in enumerate(THREE):
            assert missing[many.centre == number].mean() == pytest.approx(centre.missing[group], abs=0.02)
    assert many.missing["habits"][many.centre == 1].all()


def test_without_signal_outcomes_depend_on_nothing_but_the_centre():
    plain = simulate(20_000, THREE, seed=5, signal=False)
    assert not plain.log_hazard.any()
    assert np.array_equal(plain.hpv_logit, plain.hpv_intercept)
    for column in (plain.texture, plain.age, plain.tobacco, plain.node_count, np.log(plain.mtv_ml)):
        for outcome in (plain.event, plain.hpv):
            inside = np.concatenate([outcome[plain.centre == c] - outcome[plain.centre == c].mean() for c in range(3)])
            order = np.concatenate([column[plain.centre == c] for c in range(3)])
            assert abs(np.corrcoef(inside, order)[0, 1]) < 0.03
