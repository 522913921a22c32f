"""What the tables of HECKTOR 2022 and 2026 record beside: body weight and TN stage. Nothing else depends on them.

They come from a stream of random numbers of their own, so that patients are the same in every edition.

Source: AJCC Cancer Staging Manual, 7th edition, oropharynx: T1 to T3 and N1 to N3 by greatest dimension; T4 by what the tumour invades.
"""

from __future__ import annotations

import numpy as np

from autoseg.importers.cohort.patients import Patients

STREAM = 2
T_LIMITS_MM, N_LIMITS_MM = (20.0, 40.0), (30.0, 60.0)
INVASIVE = 0.2
"""Share of primaries beyond the first limit that are T4 whatever their size."""

MISREAD = 0.1
"""Share of stages that are written one too high or too low."""


def weight_kg(patients: Patients) -> np.ndarray:
    """Body weights in whole kg, int (n,)."""
    from scipy.special import ndtri

    return np.rint(np.clip(78 + 15 * ndtri(_uniform(patients, "weight")), 40, 150)).astype(int)


def t_stage(patients: Patients) -> list[str]:
    """ "T1" to "T4" of each primary, taken for a sphere."""
    stage = 1 + np.searchsorted(T_LIMITS_MM, _diameter_mm(patients.gtvp_ml), side="left")
    stage = np.where((stage > 1) & (_uniform(patients, "invasion") < INVASIVE), 4, stage)
    return [f"T{value}" for value in _misread(stage, 1, 4, _uniform(patients, "t_reading"))]


def n_stage(patients: Patients) -> list[str]:
    """ "N0" to "N3" of each neck: several nodes are N2 at least."""
    largest = _diameter_mm(patients.node_ml.max(axis=1))
    stage = 1 + np.searchsorted(N_LIMITS_MM, largest, side="left")
    stage = np.where(patients.node_count > 1, np.maximum(stage, 2), stage)
    stage = np.where(patients.node_count == 0, 0, stage)
    return [f"N{value}" for value in _misread(stage, 0, 3, _uniform(patients, "n_reading"))]


def _diameter_mm(ml: np.ndarray) -> np.ndarray:
    return (6000 * ml / np.pi) ** (1 / 3)


def _misread(stage: np.ndarray, lowest: int, highest: int, reading: np.ndarray) -> np.ndarray:
    step = np.where(reading < MISREAD / 2, -1, np.where(reading < MISREAD, 1, 0))
    return np.clip(stage + step, lowest, highest)


_DRAWS = ("weight", "invasion", "t_reading", "n_reading")


def _uniform(patients: Patients, name: str) -> np.ndarray:
    draws = np.random.default_rng([patients.seed, patients.stream, STREAM]).random((len(patients), len(_DRAWS)))
    return np.clip(draws[:, _DRAWS.index(name)], 1e-12, 1 - 1e-12)
