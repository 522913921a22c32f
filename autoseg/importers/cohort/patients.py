"""Who is in the phantom cohort and what becomes of them: one draw of everything that images, tables and outcomes follow from.

The hazard of relapse and the odds of HPV are stated sums; nothing else ties an outcome to a column. A patient is the same however many
others there are: each has a row of random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.importers.cohort.centres import MISSING_GROUPS, Centre

MAX_NODES = 5

LOG_HAZARD: Mapping[str, float] = {
    "log_mtv": 0.6,
    "node_count": 0.22,
    "hpv": -0.8,
    "age_decades": 0.25,
    "m_stage": 0.9,
    "frailty": 0.5,
}
"""Change of the log hazard for each unit; frailty has a standard deviation of 1 and no column anywhere."""

HPV_LOGIT: Mapping[str, float] = {
    "texture": -0.9,
    "tobacco": -0.9,
    "alcohol": -0.4,
    "node_count": 0.25,
    "age_decades": -0.35,
    "unmeasured": 0.5,
}
"""Change of the logit of HPV for each unit, beside the centre's intercept; texture and "unmeasured" have a standard deviation of 1."""

REFERENCE: Mapping[str, float] = {
    "log_mtv": 3.305,
    "node_count": 1.79,
    "hpv": 0.5,
    "age": 61.0,
    "tobacco": 0.45,
    "alcohol": 0.41,
    "m_stage": 0.06,
}
"""Where a term is 0: about the population's mean."""

LOG_MTV_DEVIATION = 0.565
"""In the population."""

WEIBULL_SHAPE, WEIBULL_SCALE_DAYS = 1.1, 3000.0
"""Of the time to relapse at a log hazard of 0."""

FOLLOW_UP_DAYS, MEAN_LOSS_DAYS = (365.0, 2200.0), 4400.0
"""Censoring, independent of all else: the end of the study, and loss to follow-up at a constant rate."""

TEXTURE_HU, TEXTURE_SPREAD = 68.0, 0.22
"""Standard deviation of CT inside the primary tumour: median, and standard deviation of its logarithm for a texture of 1."""

ERRORS: Mapping[str, float] = {"volume": 0.12, "uptake": 0.06, "texture": 0.35}
"""How far what is measured lies off what is true: standard deviations of log volume, log SUV and of texture."""

_NODE_COUNTS = (0.17, 0.47, 0.73, 0.88, 0.96)
"""Cumulative probabilities of 0, 1, 2, 3 and 4 nodes; the rest has 5."""

_PERFORMANCE = (0.5, 0.85, 0.97)
"""Cumulative probabilities of performance status 0, 1, 2; the rest has 3."""

_DRAWS = (
    *("age", "male", "tobacco", "alcohol", "performance", "treatment", "m_stage", "frailty", "unmeasured"),
    *("gtvp_ml", "gtvp_suv", "gtvp_core", "gtvp_has_core", "texture", "node_count"),
    *(f"node_{kind}_{node}" for kind in ("ml", "suv", "core", "has_core") for node in range(MAX_NODES)),
    *("hpv", "relapse", "study_end", "loss"),
    *(f"missing_{group}" for group in MISSING_GROUPS),
    *(f"error_{name}" for name in ERRORS),
)
_COLUMN = {name: column for column, name in enumerate(_DRAWS)}


@dataclass(frozen=True)
class Tumours:
    """What one patient's lesions are like.

    Attributes:
        ml: volumes, the primary first; empty for a patient without tumour.
        suv: uptake.
        core: radius of a cold core as a share of the lesion's, 0 for none.
        texture_hu: standard deviation of CT in the primary.
    """

    ml: tuple[float, ...]
    suv: tuple[float, ...]
    core: tuple[float, ...]
    texture_hu: float


@dataclass(frozen=True)
class Patients:
    """A simulated cohort, arrays of shape (n,) unless said otherwise.

    Attributes:
        seed, stream, signal: what they were drawn from; streams are independent of each other.
        centres: the hospitals; centre: index into them.
        age: years, whole; male, tobacco, alcohol, treatment, m_stage: bool; performance: 0 to 3.
        gtvp_ml, gtvp_suv, gtvp_core, texture: the primary; node_ml, node_suv, node_core: (n, MAX_NODES), 0 beyond `node_count`.
        hpv: bool; time_days: whole days from 1 on, to relapse or censoring; event: whether relapse was seen.
        log_hazard, hpv_logit: the truth, all covariates.
        missing: by group of columns, whether this patient's are.
        errors: by name, what measuring adds.
    """

    seed: int
    stream: int
    signal: bool
    centres: tuple[Centre, ...]
    centre: np.ndarray
    age: np.ndarray
    male: np.ndarray
    tobacco: np.ndarray
    alcohol: np.ndarray
    performance: np.ndarray
    treatment: np.ndarray
    m_stage: np.ndarray
    gtvp_ml: np.ndarray
    gtvp_suv: np.ndarray
    gtvp_core: np.ndarray
    texture: np.ndarray
    node_count: np.ndarray
    node_ml: np.ndarray
    node_suv: np.ndarray
    node_core: np.ndarray
    hpv: np.ndarray
    time_days: np.ndarray
    event: np.ndarray
    log_hazard: np.ndarray
    hpv_logit: np.ndarray
    missing: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def mtv_gtvp_ml(self) -> np.ndarray:
        """The primary without its cold core."""
        return self.gtvp_ml * (1 - self.gtvp_core**3)

    @property
    def mtv_gtvn_ml(self) -> np.ndarray:
        """All nodes without their cold cores."""
        return (self.node_ml * (1 - self.node_core**3)).sum(axis=1)

    @property
    def mtv_ml(self) -> np.ndarray:
        """Metabolic tumour volume of all lesions."""
        return self.mtv_gtvp_ml + self.mtv_gtvn_ml

    @property
    def texture_hu(self) -> np.ndarray:
        """Standard deviation of CT inside the primary."""
        return TEXTURE_HU * np.exp(TEXTURE_SPREAD * self.texture)

    @property
    def hpv_intercept(self) -> np.ndarray:
        """The centre's part of `hpv_logit`."""
        return np.array([centre.hpv_intercept for centre in self.centres])[self.centre]

    @property
    def names(self) -> list[str]:
        """Names such as SUD-012: the centre, and the number among all patients; those of further streams begin at 1001, 2001 and so on."""
        first = 1000 * self.stream + 1
        return [f"{self.centres[index].name}-{first + row:03d}" for row, index in enumerate(self.centre)]

    def tumours(self, row: int) -> Tumours:
        """The lesions of one patient."""
        nodes = slice(0, int(self.node_count[row]))
        return Tumours(
            ml=(float(self.gtvp_ml[row]), *self.node_ml[row, nodes].tolist()),
            suv=(float(self.gtvp_suv[row]), *self.node_suv[row, nodes].tolist()),
            core=(float(self.gtvp_core[row]), *self.node_core[row, nodes].tolist()),
            texture_hu=float(self.texture_hu[row]),
        )


def simulate(n: int, centres: Sequence[Centre], seed: int, *, signal: bool = True, stream: int = 0) -> Patients:
    """A cohort of n patients: thousands in a fraction of a second.

    Args:
        centres: the hospitals, which share the patients by their weights.
        signal: False: relapse depends on nothing, HPV on the centre alone.
        stream: further patients of the same seed, independent of those of other streams.
    """
    from scipy.special import expit

    draw = _Draws(n, seed, stream)
    centre = _spread(n, centres)
    node_count = np.searchsorted(_NODE_COUNTS, draw.uniform("node_count"), side="right")
    nodes = _nodes(draw, node_count)
    tobacco = draw.uniform("tobacco") < REFERENCE["tobacco"]
    known = {
        "age": np.clip(np.rint(REFERENCE["age"] + 9.5 * draw.normal("age")), 30, 90),
        "male": draw.uniform("male") < 0.78,
        "tobacco": tobacco,
        "alcohol": draw.uniform("alcohol") < np.where(tobacco, 0.6, 0.25),
        "performance": np.searchsorted(_PERFORMANCE, draw.uniform("performance"), side="right"),
        "treatment": draw.uniform("treatment") < 0.85,
        "m_stage": draw.uniform("m_stage") < REFERENCE["m_stage"],
        "gtvp_ml": np.clip(15 * np.exp(0.6 * draw.normal("gtvp_ml")), 2.5, 50),
        "gtvp_suv": np.clip(9 * np.exp(0.3 * draw.normal("gtvp_suv")), 4, 22),
        "gtvp_core": np.where(draw.uniform("gtvp_has_core") < 0.35, 0.35 + 0.3 * draw.uniform("gtvp_core"), 0.0),
        "texture": draw.normal("texture"),
        "node_count": node_count,
        **nodes,
    }
    intercept = np.array([one.hpv_intercept for one in centres])[centre]
    hpv_logit = intercept + signal * (hpv_terms(known) + HPV_LOGIT["unmeasured"] * draw.normal("unmeasured"))
    hpv = draw.uniform("hpv") < expit(hpv_logit)
    mtv = known["gtvp_ml"] * (1 - known["gtvp_core"] ** 3) + (nodes["node_ml"] * (1 - nodes["node_core"] ** 3)).sum(axis=1)
    log_hazard = signal * (hazard_terms(known, np.log(mtv), hpv) + LOG_HAZARD["frailty"] * draw.normal("frailty"))
    time_days, event = _follow_up(draw, log_hazard)
    rates = {group: np.array([one.missing[group] for one in centres])[centre] for group in MISSING_GROUPS}
    return Patients(
        seed,
        stream,
        signal,
        tuple(centres),
        centre,
        **known,
        hpv=hpv,
        time_days=time_days,
        event=event,
        log_hazard=log_hazard,
        hpv_logit=hpv_logit,
        missing={group: draw.uniform(f"missing_{group}") < rate for group, rate in rates.items()},
        errors={name: deviation * draw.normal(f"error_{name}") for name, deviation in ERRORS.items()},
    )


def hpv_terms(known: Mapping[str, np.ndarray]) -> np.ndarray:
    """The logit of HPV without the centre's intercept and the unmeasured part, from columns named as in `HPV_LOGIT` and "age"."""
    terms = HPV_LOGIT["texture"] * known["texture"] + HPV_LOGIT["age_decades"] * (known["age"] - REFERENCE["age"]) / 10
    return terms + sum(HPV_LOGIT[name] * (known[name] - REFERENCE[name]) for name in ("tobacco", "alcohol", "node_count"))


def hazard_terms(known: Mapping[str, np.ndarray], log_mtv: np.ndarray, hpv: np.ndarray) -> np.ndarray:
    """The log hazard without frailty; `hpv` may be a probability where the status is not known."""
    terms = LOG_HAZARD["log_mtv"] * (log_mtv - REFERENCE["log_mtv"]) + LOG_HAZARD["hpv"] * (hpv - REFERENCE["hpv"])
    terms = terms + LOG_HAZARD["node_count"] * (known["node_count"] - REFERENCE["node_count"])
    return terms + LOG_HAZARD["age_decades"] * (known["age"] - REFERENCE["age"]) / 10 + LOG_HAZARD["m_stage"] * known["m_stage"]


class _Draws:
    """A row of random numbers for every patient, by name; the first rows are the same however many follow."""

    def __init__(self, n: int, seed: int, stream: int):
        self._uniform = np.random.default_rng([seed, stream, 0]).random((n, len(_DRAWS)))

    def uniform(self, name: str) -> np.ndarray:
        return self._uniform[:, _COLUMN[name]]

    def normal(self, name: str) -> np.ndarray:
        from scipy.special import ndtri

        return ndtri(np.clip(self.uniform(name), 1e-12, 1 - 1e-12))


def _spread(n: int, centres: Sequence[Centre]) -> np.ndarray:
    """The centre of each patient: by weight, evenly along the cohort, so that a small one has patients of every centre.

    Multiples of the golden ratio, modulo 1, fill the unit interval evenly whatever their number.
    """
    weights = np.cumsum([centre.weight for centre in centres])
    places = (0.5 + np.arange(n) * ((5**0.5 - 1) / 2)) % 1
    return np.minimum(np.searchsorted(weights / weights[-1], places, side="right"), len(centres) - 1)


def _nodes(draw: _Draws, count: np.ndarray) -> dict[str, np.ndarray]:
    def columns(kind: str, of: str) -> np.ndarray:
        return np.stack([getattr(draw, of)(f"node_{kind}_{node}") for node in range(MAX_NODES)], axis=1)

    there = np.arange(MAX_NODES) < count[:, None]
    core = np.where(columns("has_core", "uniform") < 0.3, 0.35 + 0.3 * columns("core", "uniform"), 0.0)
    return {
        "node_ml": np.where(there, np.clip(7.5 * np.exp(0.5 * columns("ml", "normal")), 1.5, 30), 0.0),
        "node_suv": np.where(there, np.clip(7.5 * np.exp(0.3 * columns("suv", "normal")), 3.5, 20), 0.0),
        "node_core": np.where(there, core, 0.0),
    }


def _follow_up(draw: _Draws, log_hazard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    relapse = WEIBULL_SCALE_DAYS * (-np.log1p(-draw.uniform("relapse")) * np.exp(-log_hazard)) ** (1 / WEIBULL_SHAPE)
    first, last = FOLLOW_UP_DAYS
    censored = np.minimum(first + (last - first) * draw.uniform("study_end"), -MEAN_LOSS_DAYS * np.log1p(-draw.uniform("loss")))
    return np.maximum(np.ceil(np.minimum(relapse, censored)), 1).astype(np.int64), relapse <= censored
