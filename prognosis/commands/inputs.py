"""What the commands that fit models read: a clinical table, how its columns are read, image features."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.commands.entry import add_shared_options

if TYPE_CHECKING:
    from prognosis.features.table import FeatureTable
    from prognosis.targets import Declaration


logger = logging.getLogger(__name__)

FEATURES = "features.csv"


@dataclass(frozen=True)
class Inputs:
    """The files, read.

    Attributes:
        folder: what is fitted goes there: the plan's prognosis folder.
        sources: what a file is ("table", "cohort", "features", "truth") -> the file, of those that are read.
        declaration: what the table's columns are.
        features: None without.
        hashes: SHA-256 of the files, by what they are.
    """

    folder: Path
    sources: Mapping[str, Path]
    declaration: Declaration
    features: FeatureTable | None
    hashes: Mapping[str, str]

    @property
    def saw(self) -> tuple[bool | None, bool | None]:
        """Whether the networks behind the masks saw the centres, and the patients; None where not known or without masks."""
        return (None, None) if self.features is None else (self.features.segmentation_saw_centre, self.features.segmentation_saw_patient)


def add_input_options(options: argparse.ArgumentParser) -> None:
    """The options that `read_inputs` reads, those that all commands share, and the seed."""
    add_shared_options(options)
    options.add_argument("--table", type=Path, metavar="FILE", help="the clinical table (default: DIR/cases.csv)")
    options.add_argument("--cohort", type=Path, metavar="TOML", help="what the table's columns are (default: DIR/cohort.toml, if there)")
    options.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help=f"image features (default: what prognosis features wrote; of a dataset without images DIR/{FEATURES}, if there)",
    )
    options.add_argument("--no-features", action="store_true", help="clinical columns only, although there are images")
    options.add_argument("--seed", type=int, default=0, metavar="N", help="of folds and bootstrap")


def read_inputs(parsed: argparse.Namespace) -> Inputs:
    """The inputs that the options name.

    Raises:
        FitError: there are images that are not measured yet.
        CohortError, TargetError, FeatureError: the table, cohort.toml or the features cannot be read.
    """
    from autoseg import files
    from autoseg.dataset.workspace import Workspace
    from prognosis.declaration import read_declaration
    from prognosis.errors import CohortError
    from prognosis.features.table import FeatureTable

    workspace = Workspace.of(parsed.dataset, parsed.work, parsed.name)
    folder = workspace.root / workspace.name / "prognosis"
    sources = _sources(parsed, folder / FEATURES)
    declaration = read_declaration(sources.get("cohort"))
    features = FeatureTable.read(sources["features"]) if "features" in sources else None
    try:
        hashes = {name: files.sha256_file(path) for name, path in sources.items()}
    except OSError as error:
        raise CohortError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return Inputs(folder, sources, declaration, features, hashes)


def _sources(parsed: argparse.Namespace, usual_features: Path) -> dict[str, Path]:
    from prognosis.errors import FitError

    sources = {"table": parsed.table or parsed.dataset / "cases.csv"}
    usual = parsed.dataset / "cohort.toml"
    if parsed.cohort or usual.exists():
        sources["cohort"] = parsed.cohort or usual
    if not parsed.no_features:
        beside = parsed.dataset / FEATURES
        if parsed.features or usual_features.exists():
            sources["features"] = parsed.features or usual_features
        elif (parsed.dataset / "imagesTr").is_dir():
            raise FitError(
                f"{usual_features}: the images are not measured yet. Run: prognosis features -d {parsed.dataset} (after training), name "
                "features from elsewhere with --features, or fit clinical columns alone with --no-features"
            )
        elif beside.exists():
            logger.info("%s: taken as the patients' image features; --no-features leaves them out", beside)
            sources["features"] = beside
    if getattr(parsed, "truth", None):
        sources["truth"] = parsed.truth
    return sources
