"""Tiny datasets whose plan has a cascade: their volumes are too small to call for one, so the plan is edited."""

import json
from pathlib import Path

from tiny import TinyDataset

LABELS = {"background": 0, "ball": 1, "core": 2}
LOWRES, CASCADE = "3d_lowres", "3d_cascade_fullres"
SHORT = {"training.epochs": 2, "training.iterations": 4, "training.validation_iterations": 1, "training.optimiser.lr": 0.05}


class CascadeDataset(TinyDataset):
    """A ball with a core, in two labels."""

    def describe(self, **changes) -> None:
        super().describe(labels=LABELS, **changes)

    def arrays(self, name: str):
        ct, pet, mask = super().arrays(name)
        return ct, pet, mask + (mask & (ct > 70))

    def plan(self, folds: str) -> None:
        """Plans, and puts a 3d_lowres at 1.5 times the spacing and a 3d_cascade_fullres into the plan."""
        from autoseg import plan

        plan(self.folder, preset="laptop", folds=folds, workers=0, settings=SHORT)
        path = self.work / "default" / "plan.json"
        document = json.loads(path.read_text())
        full = document["configurations"]["3d_fullres"]
        low = {**full, "spacing": [1.5 * s for s in full["spacing"]], "median_shape": [n / 1.5 for n in full["median_shape"]]}
        masks = {"morphology": {"radius": [1, 3]}, "components": {}}
        second = {**full, "previous_stage": LOWRES, "augmentation": {**full["augmentation"], "previous_stage": masks}}
        document["configurations"] |= {LOWRES: low, CASCADE: second}
        path.write_text(json.dumps(document))

    def train(self, fold, configuration: str, **options):
        from autoseg import train

        return train(self.folder, fold, configuration=configuration, workers=0, threads=1, device="cpu", **options)

    def fold(self, fold, configuration: str, scheme: str = "cv2") -> Path:
        return self.work / "default" / configuration / scheme / f"fold_{fold}"

    def held_out(self, fold) -> list[str]:
        return json.loads((self.work / "default" / "folds.json").read_text())["folds"][str(fold)]["validation"]
