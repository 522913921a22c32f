"""A segmented dataset with a segmentation model and two fitted targets; nothing is trained, and the masks need not be good."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from segmented import CONFIGURATION, SPACING, SegmentedDataset, head

from prognosis.features.case import FEATURES, case_features
from prognosis.models.document import PrognosisModel, write_model
from prognosis.models.pipeline import Penalty, Pipeline
from prognosis.outcomes import Labels, Survival
from prognosis.targets import SHIPPED

COLUMNS = ("volume_total_ml", "mtv_ml", "suvmax_gtvp", "first_order_ct_mean_gtvp", "Age")


def ready_dataset(folder: Path) -> SimpleNamespace:
    """`dataset`: a workspace with a model folder of random weights and the models of rfs and hpv; new patients N-0 and N-1 in imagesTs."""
    dataset = SegmentedDataset(folder)
    write_segmentation_model(dataset)
    frame = training_frame()
    kinds = dict.fromkeys(COLUMNS, "numeric")
    rng = np.random.default_rng(0)
    outcomes = {
        "rfs": Survival(rng.uniform(100, 1500, len(frame)), rng.uniform(size=len(frame)) < 0.5),
        "hpv": Labels(rng.uniform(size=len(frame)) < 0.5),
    }
    for name, outcome in outcomes.items():
        fitted = Pipeline(SHIPPED[name].kind, COLUMNS, (), Penalty(1.0, 1.0)).fit(frame, kinds, outcome)
        model = PrognosisModel(
            SHIPPED[name], fitted, 0.5 if name == "hpv" else None, 0.0, {"patients": len(frame)}, {}, False, {}, {"autoseg": "test"}
        )
        write_model(dataset.work.root / "default" / "prognosis" / name / "model.json", model)
    for index in range(2):
        dataset.write_images(f"N-{index}", *head(10 + index)[:2], folder="imagesTs")
    (dataset.folder / "casesTs.csv").write_text("case,patient,Age,HPV Status\nN-0,Nora,61,1\nN-1,Noel,55,\n")
    return SimpleNamespace(dataset=dataset)


def training_frame() -> pd.DataFrame:
    """Thirty patients as `head` makes them, of all sizes that random masks may have."""
    rng = np.random.default_rng(1)
    features = [case_features(*head(seed), SPACING) for seed in range(6)]
    frame = pd.DataFrame([{name: features[row % 6][name] for name in COLUMNS if name in FEATURES} for row in range(30)])
    frame["volume_total_ml"] = rng.uniform(0.01, 20, 30)
    frame["mtv_ml"] = rng.uniform(0.01, 10, 30)
    frame["suvmax_gtvp"] = rng.uniform(0.1, 15, 30)
    frame["first_order_ct_mean_gtvp"] = rng.uniform(-1000, 100, 30)
    frame["Age"] = rng.uniform(40, 80, 30)
    return frame


def write_segmentation_model(dataset: SegmentedDataset) -> None:
    from autoseg.inference.model_documents import ModelDataset
    from autoseg.inference.model_writing import write_model_folder
    from autoseg.networks import build_network

    plan = dataset.work.read_plan()
    network = build_network(plan.configuration(CONFIGURATION).network, 2, 3, 3, seed=4)
    described = ModelDataset("D", plan.channels, dict(plan.labels), plan.file_ending, CONFIGURATION, dataset.scheme)
    write_model_folder(dataset.work.model(CONFIGURATION, dataset.scheme), plan=plan, dataset=described, weights={"A": network.state_dict()})


def play_network(monkeypatch, mask_of) -> None:
    """The network's part played by given masks: what follows is the test's subject.

    Args:
        mask_of: case -> its mask.
    """
    from autoseg.inference.stages import Stage

    monkeypatch.setattr(Stage, "segment", lambda self, ready, case, probabilities, agreement: mask_of(case))
