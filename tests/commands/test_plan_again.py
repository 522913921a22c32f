"""Planning asked for in other ways, by the installed commands, and what training and predicting make of it."""

import json

import SimpleITK as sitk
from tiny import QUICK, TinyDataset


def planned(run, dataset, *options, status=0):
    return run("plan", "-d", dataset.folder, "--workers", 0, *options, status=status)


def train(run, dataset, fold, *options, status=0):
    return run("train", fold, "-d", dataset.folder, *QUICK, "--workers", 0, *options, status=status)


def document(dataset, name):
    return json.loads((dataset.work / "default" / name).read_text())


def masks(dataset, *parts):
    return {path.name.removesuffix(".nii.gz") for path in dataset.work.joinpath("default", *parts, "masks").glob("*.nii.gz")}


def centres(dataset):
    rows = [f"{name},{'ABC'[index % 3]}" for index, name in enumerate(dataset.names)]
    (dataset.folder / "cases.csv").write_text("\n".join(["case,centre", *rows]) + "\n")


def test_what_is_left_out_stays_so_and_training_leaves_it_out_too(tiny, run):
    tiny.label("case05").unlink()
    assert "case05" in planned(run, tiny, "--preset", "laptop", status=2).stderr
    planned(run, tiny, "--preset", "laptop", "--exclude", "case05")
    before = document(tiny, "plan.json")
    assert "case05" in planned(run, tiny).stderr, "a plain second run says what it leaves out"
    assert document(tiny, "plan.json") == before
    assert before["preset"] == "laptop", "and keeps what was asked for"
    train(run, tiny, 0)
    assert masks(tiny, "3d_fullres", "cv5", "fold_0") == set(document(tiny, "folds.json")["folds"]["0"]["validation"])
    assert "labelsTr" in planned(run, tiny, "--exclude", status=2).stderr, "taken in again, it has no mask"


def test_another_preset_is_refused_until_it_is_meant(tiny, run):
    planned(run, tiny, "--preset", "laptop", "--set", "training.epochs=3")
    before = document(tiny, "plan.json")
    assert "--replan" in planned(run, tiny, "--preset", "default", status=2).stderr
    assert document(tiny, "plan.json") == before
    planned(run, tiny, "--preset", "default", "--replan")
    after = document(tiny, "plan.json")
    assert (after["preset"], after["configurations"]["3d_fullres"]["training"]["epochs"]) == ("default", 3)


def test_one_fold_a_centre_and_back(tiny, run, tmp_path):
    centres(tiny)
    planned(run, tiny, "--preset", "laptop", "--folds", "loco")
    train(run, tiny, "B")
    assert masks(tiny, "3d_fullres", "loco", "fold_B") == set(tiny.names[1::3])
    planned(run, tiny, "--folds", "cv3")
    three = document(tiny, "folds.json")
    image = [tiny.image("case00", channel) for channel in (0, 1)]
    told = run("predict", "-d", tiny.folder, "-i", *image, "-o", tmp_path / "out", status=2).stderr
    assert "loco (folds B)" in told, "what is finished is named, though another scheme is in use"
    planned(run, tiny, "--folds", "loco")
    run("predict", "-d", tiny.folder, "-i", *image, "-o", tmp_path / "out", "--no-mirroring")
    assert (tmp_path / "out" / "case00.nii.gz").exists()
    planned(run, tiny, "--folds", "cv3")
    assert document(tiny, "folds.json") == three


def test_a_file_of_folds_that_changes(tiny, run, tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": tiny.names[:4], "val": tiny.names[4:]}]))
    planned(run, tiny, "--preset", "laptop", "--folds", path)
    path.write_text(json.dumps([{"train": tiny.names[2:], "val": tiny.names[:2]}]))
    assert "has changed" in planned(run, tiny, "--folds", path).stderr
    train(run, tiny, 0)
    assert masks(tiny, "3d_fullres", "splits", "fold_0") == set(tiny.names[:2])
    path.rename(tmp_path / "cv5.json")
    assert "Rename" in planned(run, tiny, "--folds", tmp_path / "cv5.json", status=2).stderr


def test_training_on_everything(tiny, run):
    planned(run, tiny, "--preset", "laptop")
    done = train(run, tiny, "all")
    assert "training cases (not held out)" in done.stdout
    summary = json.loads((tiny.work / "default" / "3d_fullres" / "cv5" / "fold_all" / "summary.json").read_text())
    assert summary["out_of_fold"] is False
    assert masks(tiny, "3d_fullres", "cv5", "fold_all") == set(tiny.names)


def test_flat_images(tmp_path, run):
    dataset = TinyDataset(tmp_path / "Flat", cases=4, shape=(1, 40, 32))
    planned(run, dataset, "--preset", "laptop")
    assert list(document(dataset, "plan.json")["configurations"]) == ["2d"]
    train(run, dataset, 0)
    assert masks(dataset, "2d", "cv5", "fold_0") == set(document(dataset, "folds.json")["folds"]["0"]["validation"])
    run("predict", "-d", dataset.folder, "-i", dataset.folder / "imagesTr", "-o", tmp_path / "out")
    for name in dataset.names:
        mask, image = (sitk.ReadImage(str(path)) for path in (tmp_path / "out" / f"{name}.nii.gz", dataset.image(name, 0)))
        assert (mask.GetSize(), mask.GetSpacing()) == (image.GetSize(), image.GetSpacing())
