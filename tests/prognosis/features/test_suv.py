"""Scales that cannot be SUV are told, real SUV images are not."""

import pytest
from segmented import head

from autoseg.images import read_image
from prognosis.features.suv import suv_problem


def test_a_plausible_image_passes():
    ct, pet, _ = head(0)
    assert suv_problem(pet, ct) is None
    assert suv_problem(pet) is None


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("Bq/ml", lambda pet: pet * 5000, "highest value"),
        ("share of the dose", lambda pet: pet * 1e-5, "highest value"),
        ("standardised", lambda pet: (pet - pet.mean()) / pet.std(), "below"),
        ("many times too bright", lambda pet: pet * 20, "median"),
        ("nothing but background", lambda pet: pet * 0 + 0.5, "highest value"),
    ],
)
def test_other_scales_are_told(name, change, word):
    ct, pet, _ = head(0)
    assert word in (suv_problem(change(pet), ct) or ""), name


def test_real_images_in_suv_pass_and_in_becquerels_do_not(shared_data):
    folder = shared_data / "sts_petct_petgrid"
    for path in sorted(folder.glob("imagesTr/*_0001.nii.gz"))[:3]:
        pet = read_image(path).array
        assert suv_problem(pet) is None, path.name
        assert suv_problem(pet * 5000.0) is not None, path.name
