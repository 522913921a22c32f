"""Cohorts made of a few lines of numpy, for tests of models and validation: the tests' own, so that no generator vouches for itself."""

import numpy as np
import pandas as pd

from prognosis.cohort import Cohort, FlowStep, Labels, Survival
from prognosis.targets import Target

SURVIVAL = Target("rfs", "Recurrence-free survival", "survival", event="relapse", time="days", origin="diagnosis", horizon_days=600.0)
BINARY = Target("hpv", "HPV status", "binary", event="hpv")


def make_cohort(kind="survival", n=90, centres=3, seed=0, signal=1.0, prevalence_shift=0.0, events=0.5) -> Cohort:
    """A cohort with an age, a stage of three levels, a volume, two image features and a flag; a part of the values is missing.

    Args:
        signal: 0 makes outcomes independent of the predictors.
        prevalence_shift: how far the log odds (or log hazards) of the centres lie apart.
        events: about which share of a survival cohort has the event.
    """
    random = np.random.default_rng(seed)
    centre = np.array([f"H{k}" for k in range(centres)], dtype=object)[np.arange(n) % centres]
    age, volume, texture = random.normal(60, 8, n), random.lognormal(2.5, 0.9, n), random.normal(size=n)
    stage = random.choice(np.array(["I", "II", "III"], dtype=object), n)
    score = 0.7 * np.log(volume) - 1.7 + 0.5 * texture + 0.5 * (stage == "III") + 0.03 * (age - 60)
    score = signal * score + prevalence_shift * (np.arange(n) % centres)
    outcome: Survival | Labels
    if kind == "survival":
        time, censoring = random.exponential(900 * np.exp(-score)) + 1, random.exponential(900 * events / (1 - events), n) + 1
        outcome = Survival(np.minimum(time, censoring), time <= censoring)
    else:
        outcome = Labels(random.random(n) < 1 / (1 + np.exp(-score)))
    blank = random.random(n) < 0.15
    frame = pd.DataFrame(
        {
            "age": np.where(random.random(n) < 0.1, np.nan, age),
            "stage": pd.Series(np.where(blank, None, stage), dtype=object),
            "volume_total_ml": volume,
            "texture": np.where(blank, np.nan, texture),
            "noise": random.normal(size=n),
        }
    )
    patients = tuple(f"P{k:04d}" for k in range(n))
    frame.index = pd.Index(patients)
    return Cohort(
        patients=patients,
        centre=tuple(centre),
        target=SURVIVAL if kind == "survival" else BINARY,
        outcome=outcome,
        predictors=frame,
        kinds={name: "categorical" if name == "stage" else "numeric" for name in frame},
        groups={"age": "clinical", "stage": "clinical", "volume_total_ml": "volume", "texture": "image", "noise": "image"},
        status=dict.fromkeys(patients, "ok"),
        flow=(FlowStep("rows", n),),
        notes=(),
    )
