"""The dataset folder as one checked value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import sides, table
from autoseg.dataset.case import Case
from autoseg.dataset.description import read_description
from autoseg.dataset.layout import find_training_cases
from autoseg.errors import DatasetError
from planners.labels import LabelScheme, Values


@dataclass(frozen=True)
class Dataset:
    """A dataset folder in nnU-Net's or MSD's layout, checked as far as names tell; `check_case` looks inside the images.

    Args:
        folder: absolute.
        channels: names in index order.
        labels: name -> value, ascending from the background's 0; with regions name -> value or values, as declared.
        file_ending: of its files, such as ".nii.gz".
        cases: the training cases, sorted by name.
        notes: what a user should know: files that are not used, counts that differ.
        region_order: the value that each region is painted with; empty without regions.
    """

    folder: Path
    name: str
    channels: tuple[str, ...]
    labels: dict[str, Values]
    file_ending: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()
    region_order: tuple[int, ...] = ()

    @staticmethod
    def open(folder: str | Path, *, exclude: Iterable[str] = (), left_out: Iterable[str] = ()) -> Dataset:
        """The dataset in a folder.

        Args:
            exclude: case names to leave out; what is wrong with those does not matter.
            left_out: the same, remembered from before, so that they may be gone by now.

        Raises:
            DatasetError: with everything that is wrong in one message.
        """
        dataset, problems = Dataset.survey(folder, exclude=exclude, left_out=left_out)
        if problems:
            raise DatasetError(refusal(dataset.folder, problems))
        return dataset

    @staticmethod
    def survey(folder: str | Path, *, exclude: Iterable[str] = (), left_out: Iterable[str] = ()) -> tuple[Dataset, tuple[str, ...]]:
        """The dataset with those cases in which nothing is wrong as far as names tell, and everything that is wrong.

        Args:
            exclude, left_out: as in `open`.

        Raises:
            DatasetError: dataset.json does not say what to look for, or a case of `exclude` is not there; all problems are told.
        """
        folder = Path(folder).absolute()
        exclude = tuple(dict.fromkeys(exclude))
        aside = tuple(dict.fromkeys((*exclude, *left_out)))
        description = read_description(folder)
        found = find_training_cases(folder, description, aside, known=exclude)
        cases, problems, notes = found.cases, found.problems, found.notes
        path = folder / table.FILE_NAME
        if path.exists():
            try:
                cases = table.apply_table(cases, table.read_table(path), aside, problems, notes)
            except DatasetError as error:
                problems.append(str(error))
        if found.mistaken:
            raise DatasetError(refusal(folder, [*found.mistaken, *problems]))
        if not cases and not problems:
            problems.append(
                f"there are no training cases. They belong in imagesTr and labelsTr, or in the 'dataset' list of dataset.json{_seen(notes)}"
            )
        dataset = Dataset(
            folder,
            description.name,
            description.channels,
            description.labels,
            description.file_ending,
            tuple(cases),
            (*notes, *_unpaintable(LabelScheme(description.labels, description.region_order))),
            description.region_order,
        )
        return dataset, tuple(problems)

    @property
    def label_scheme(self) -> LabelScheme:
        """What the labels mean to a network."""
        return LabelScheme(self.labels, self.region_order)

    @property
    def has_sides(self) -> bool:
        """Whether labels come in left and right pairs, so that no image may be mirrored from left to right."""
        return bool(sides.left_right_pairs(self.labels))

    def case(self, name: str) -> Case:
        """The case of that name.

        Raises:
            DatasetError: there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise DatasetError(f"{self.folder}: there is no case {name!r}")


def _unpaintable(scheme: LabelScheme) -> list[str]:
    """Where regions overlap so that no order of painting shows them all."""
    return [
        f"a mask that is painted in the order of regions_class_order cannot tell the region {name!r} right where the truth is {value}: it "
        f"shows {shown} there. Choose another order; where there is none, take the probabilities (autoseg_predict --save-probabilities)"
        for name, value, shown in scheme.misshown()
    ]


def refusal(folder: Path, problems: Sequence[str]) -> str:
    """The message of everything that is wrong with a dataset."""
    if len(problems) == 1:
        return f"{folder}: {problems[0]}"
    return f"{folder}: {len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems)


def _seen(notes: list[str]) -> str:
    return "".join(f"\n  {note}" for note in notes)
