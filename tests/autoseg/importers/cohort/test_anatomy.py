from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label

from autoseg.importers.cohort import imaging
from autoseg.importers.cohort.anatomy import BRAIN, draw_scene
from autoseg.importers.cohort.centres import first_centres
from autoseg.importers.cohort.imaging import Pose, scan
from autoseg.importers.cohort.patients import Tumours, simulate
from autoseg.importers.cohort.write import image_patient

THREE = first_centres(3)
PATIENTS = simulate(9, THREE, seed=1)
TUMOURS = Tumours(ml=(16.0, 8.0), suv=(9.0, 8.0), core=(0.0, 0.0), texture_hu=68.0)


@pytest.fixture(scope="module")
def scans():
    return [image_patient(PATIENTS.tumours(row), PATIENTS.centres[PATIENTS.centre[row]].scanner, "demo", (1, row)) for row in range(9)]


def volumes(mask, spacing):
    return [np.sum(mask == value) * np.prod(spacing) / 1000 for value in (1, 2)]


def middle(mask, geometry):
    """Of the voxels of a mask, in the patient, mm."""
    return geometry.positions(np.argwhere(mask)).mean(axis=0)


def test_every_lesion_of_the_record_is_in_the_mask_with_its_volume(scans):
    for row, made in enumerate(scans):
        tumours = PATIENTS.tumours(row)
        primary, nodes = volumes(made.mask, made.ct_geometry.spacing)
        assert primary == pytest.approx(tumours.ml[0], rel=0.3)
        assert nodes == pytest.approx(sum(tumours.ml[1:]), rel=0.3)
        assert label(made.mask == 1, np.ones((3, 3, 3)))[1] == 1


def test_a_patient_without_tumour_has_an_empty_mask():
    made = image_patient(Tumours((), (), (), 0.0), THREE[0].scanner, "demo", (1, 2))
    assert not made.mask.any()
    assert made.pet.max() > 3


def test_the_same_numbers_give_the_same_voxels():
    first, second, other = (image_patient(TUMOURS, THREE[0].scanner, "demo", seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(first.ct, second.ct)
    assert np.array_equal(first.pet, second.pet)
    assert not np.array_equal(first.mask, other.mask)


def test_each_image_has_its_own_grid(scans):
    for made in scans[:3]:
        assert made.ct.shape == made.mask.shape == made.ct_geometry.shape
        assert made.pet.shape == made.pet_geometry.shape
        assert made.pet_geometry.spacing != made.ct_geometry.spacing
        assert made.pet_geometry.origin != made.ct_geometry.origin
    assert len({made.ct_geometry.spacing for made in scans}) == 3


def test_ct_pet_and_mask_show_one_patient_in_every_orientation():
    """The hot spot lies where the mask does, in the patient's coordinates, also where a scanner stores its axes the other way round."""
    plain = replace(THREE[0].scanner, pet_noise=0.01, ct_noise=1.0)
    rng = np.random.default_rng(4)
    scene = draw_scene(TUMOURS, 1.0, rng)
    scene = replace(scene, blobs=tuple(blob for blob in scene.blobs if blob.kind.label))
    positions = []
    for scanner in (plain, replace(plain, flipped=True)):
        made = scan(scene, Pose(1.0, (3.0, -2.0, 4.0), 0.1), scanner, "demo", np.random.default_rng(1))
        positions.append(middle(made.mask == 1, made.ct_geometry))
        distance = np.linalg.norm(made.pet_geometry.positions(np.stack(np.indices(made.pet.shape), -1)) - positions[-1], axis=-1)
        assert middle((distance < 25) & (made.pet > 4), made.pet_geometry) == pytest.approx(positions[-1], abs=2.5)
    assert positions[0] == pytest.approx(positions[1], abs=1e-6)
    assert np.diag(np.reshape(made.ct_geometry.direction, (3, 3))).tolist() == [-1, -1, 1]


def test_the_body_is_plausible(scans):
    made = scans[1]  # NOR: no offset, SUV as it is
    ct, spacing = made.ct.astype(float), made.ct_geometry.spacing
    assert made.ct.dtype == np.int16
    assert np.median(ct[:, :3, :3]) == pytest.approx(-1000, abs=15)
    assert ct.max() > 500
    inside = (slice(-1, None), slice(13, 19), slice(13, 19))
    assert ct[inside].mean() == pytest.approx(BRAIN, abs=8)
    body = np.sum(ct > -500) * np.prod(spacing) / 1e6
    assert 1.5 < body < 4.5  # litres, head and neck
    assert 0.2 < np.median(made.pet[made.pet > 0.2]) < 2


def test_centres_differ_in_scale_and_noise():
    north, south = ([image_patient(TUMOURS, centre.scanner, "demo", (7, row)) for row in range(3)] for centre in THREE[:2])
    brain = [np.mean([np.percentile(made.pet, 99.5) for made in scans]) for scans in (north, south)]
    assert brain[1] == pytest.approx(0.62 * brain[0], rel=0.12)
    air = [np.mean([made.ct[:, :3, :3].std() for made in scans]) for scans in (north, south)]
    assert air[1] > air[0]


def test_slabs_do_not_show(monkeypatch):
    whole = image_patient(TUMOURS, THREE[0].scanner, "demo", (3,))
    monkeypatch.setattr(imaging, "SLAB_VOXELS", 5 * 48 * 48)
    parts = image_patient(TUMOURS, THREE[0].scanner, "demo", (3,))
    assert np.array_equal(whole.mask, parts.mask)
    assert np.abs(whole.ct.astype(int) - parts.ct).max() < 20  # the noise's standard deviation is that of a slab


def test_look_alikes_are_as_bright_and_as_large_as_lesions():
    inside = outside = 0.0
    for row in range(9):
        scene = draw_scene(PATIENTS.tumours(row), 1.0, np.random.default_rng(row))
        for blob in scene.blobs:
            bright = (blob.uptake > 4) * float(np.prod(blob.radii))
            inside, outside = inside + bright * (blob.kind.label > 0), outside + bright * (blob.kind.label == 0)
    assert outside > inside
