import json
from pathlib import Path

import pytest


class Maker:
    """Writes dataset folders whose files are empty: what the layout tells needs no images."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}

    def describe(self, **changes):
        self.document.update(changes)
        self.document = {key: value for key, value in self.document.items() if value is not None}
        return self.write("dataset.json", json.dumps(self.document))

    def write(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def case(self, name: str, channels: int = 1, ending: str = ".nii.gz"):
        for index in range(channels):
            self.write(f"imagesTr/{name}_{index:04d}{ending}")
        self.write(f"labelsTr/{name}{ending}")

    def msd(self, *names: str, **changes):
        for name in names:
            self.write(f"imagesTr/{name}.nii.gz")
            self.write(f"labelsTr/{name}.nii.gz")
        training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
        self.document = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "tumour"}, "numTraining": len(names)}
        self.describe(**{"training": training, **changes})


@pytest.fixture
def make(tmp_path) -> Maker:
    return Maker(tmp_path / "Dataset001_Test")
