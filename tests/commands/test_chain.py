"""The way of a new user: plan, train, predict, evaluate, by the installed commands."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from tiny import ONE_THREAD, QUICK, TinyDataset, command_line

MODEL = ("default", "3d_fullres", "cv5")


def fold_folder(dataset, fold=0):
    return dataset.work.joinpath(*MODEL, f"fold_{fold}")


def test_a_fold_leaves_weights_masks_scores_and_a_curve(trained):
    folder = fold_folder(trained)
    summary = json.loads((folder / "summary.json").read_text())
    held_out = json.loads((trained.work / "default" / "folds.json").read_text())["folds"]["0"]["validation"]
    assert sorted(p.name for p in (folder / "masks").glob("*.nii.gz")) == [f"{case}.nii.gz" for case in held_out]
    assert summary["out_of_fold"] is True
    assert 0 <= summary["dice"]["ball"] <= 1
    assert {"metric_per_case", "mean", "foreground_mean"} <= set(summary), "nnU-Net's fields"
    for name in ("model.safetensors", "progress.png", "logbook.jsonl", "run.json"):
        assert (folder / name).stat().st_size > 0
    assert not (folder / "lock.json").exists()
    model = folder.parent
    assert {"plan.json", "dataset.json", "fingerprint.json", "manifest.json", "README.md"} <= {p.name for p in model.iterdir()}
    assert "not a medical device" in (model / "README.md").read_text().lower()


def test_a_finished_fold_says_so_and_stops(trained, run):
    before = (fold_folder(trained) / "model.safetensors").stat().st_mtime_ns
    done = run("train", 0, "-d", trained.folder, *QUICK, "--workers", 0)
    assert "finished" in done.stdout + done.stderr
    assert (fold_folder(trained) / "model.safetensors").stat().st_mtime_ns == before


def test_predict_and_evaluate(trained, run, tmp_path):
    new = TinyDataset(tmp_path / "New", cases=0, shape=(9, 21, 17), seed=5)
    for name in ("a", "b"):
        new.add(name, "imagesTs")
    masks = tmp_path / "masks"
    run("predict", "-d", trained.folder, "-i", new.folder / "imagesTs", "-o", masks)
    for name in ("a", "b"):
        image, mask = sitk.ReadImage(str(new.image(name, 0, "imagesTs"))), sitk.ReadImage(str(masks / f"{name}.nii.gz"))
        assert image.GetSize() == mask.GetSize()
        assert np.allclose(
            (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()), (*mask.GetSpacing(), *mask.GetOrigin(), *mask.GetDirection())
        )
    out = tmp_path / "scores.json"
    run("evaluate", new.folder / "labelsTr", masks, "-d", trained.folder, "--json", out, "--csv", tmp_path / "scores.csv")
    cases = json.loads(out.read_text())["result"]["cases"]
    reference, predicted = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "a.nii.gz"))) > 0 for folder in (new.folder / "labelsTr", masks)
    )
    total = reference.sum() + predicted.sum()
    assert cases[0]["labels"]["ball"]["dice"] == pytest.approx(2 * (reference & predicted).sum() / total)
    assert len(list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))) >= 2


def test_predicting_the_files_of_one_case_and_resuming(trained, run, tmp_path):
    files = [trained.image("case00", channel) for channel in (0, 1)]
    run("predict", "-d", trained.folder, "-i", *files, "-o", tmp_path, "--no-mirroring", "--save-probabilities")
    mask = tmp_path / "case00.nii.gz"
    probabilities = np.load(tmp_path / "case00.probabilities.npy", allow_pickle=False)
    assert probabilities.shape == (2, *trained.shape)
    assert (probabilities.argmax(0) == sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))).mean() > 0.999
    before = mask.stat().st_mtime_ns
    run("predict", "-d", trained.folder, "-i", *files, "-o", tmp_path, "--no-mirroring", "--save-probabilities", "--resume")
    assert mask.stat().st_mtime_ns == before


def test_predicts_without_scikit_survival_and_pandas(trained, tmp_path):
    script = (
        "import sys\n"
        "for name in ('pandas', 'sksurv', 'sklearn'): sys.modules[name] = None\n"
        "from autoseg.commands.predict import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["-d", trained.folder, "-i", trained.folder / "imagesTr", "-o", tmp_path, "--no-mirroring"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)], capture_output=True, text=True, env=os.environ | ONE_THREAD, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.nii.gz"))) == 6


def test_a_second_plan_redoes_only_what_changed(tiny, run):
    def plan():
        out = tiny.folder / "out.json"
        run("plan", "-d", tiny.folder, "--preset", "laptop", "--workers", 0, "--json", out)
        return json.loads(out.read_text())["result"]

    assert plan()["examined"] == 6
    again = plan()
    assert (again["examined"], again["prepared"], again["kept"]) == (0, 0, True)
    folds = json.loads((tiny.work / "default" / "folds.json").read_text())["folds"]
    ct, pet, mask = tiny.arrays("case03")
    tiny.write(np.roll(mask, 1, axis=2), tiny.label("case03"))  # a corrected mask
    tiny.add("case99")  # a new case
    tiny.names.append("case99")
    tiny.describe()
    changed = plan()
    assert (changed["examined"], changed["prepared"], changed["kept"]) == (2, 2, True)
    after = json.loads((tiny.work / "default" / "folds.json").read_text())["folds"]
    for name, fold in folds.items():
        assert set(fold["validation"]) <= set(after[name]["validation"]) <= set(fold["validation"]) | {"case99"}


def test_a_hand_edited_plan_is_never_overwritten(tiny, run):
    run("plan", "-d", tiny.folder, "--preset", "laptop", "--workers", 0)
    path = tiny.work / "default" / "plan.json"
    document = json.loads(path.read_text())
    document["configurations"]["3d_fullres"]["training"]["epochs"] = 7
    path.write_text(json.dumps(document))
    edited = path.read_text()
    assert "kept as it is" in run("plan", "-d", tiny.folder, "--preset", "laptop", "--workers", 0).stderr
    done = run("plan", "-d", tiny.folder, "--preset", "default", "--replan", "--workers", 0, status=2)
    assert "edited by hand" in done.stderr
    assert path.read_text() == edited
    run("plan", "-d", tiny.folder, "--name", "other", "--workers", 0)
    assert path.read_text() == edited


def test_a_larger_number_of_epochs_continues_a_finished_fold(tiny, run):
    run("plan", "-d", tiny.folder, "--preset", "laptop", "--workers", 0)
    run("train", 0, "-d", tiny.folder, *QUICK, "--workers", 0)
    longer = ("--epochs", 3, "--iterations", 3, "--set", "training.validation_iterations=1")
    done = run("train", 0, "-d", tiny.folder, *longer, "--workers", 0)
    assert "recomputed over 3 epochs" in done.stderr
    rows = [json.loads(line) for line in (fold_folder(tiny) / "logbook.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    refused = run("train", 0, "-d", tiny.folder, *longer, "--seed", 5, "--workers", 0)
    assert "--restart" in refused.stderr


def loaders_of(dataset):
    """Loader processes that still work for this dataset: they are spawned, so their open files tell."""
    time.sleep(2)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(process.cmdline()) and any(str(dataset.folder) in file.path for file in process.memory_maps()):
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_at_random_moments_and_resumed_gives_bit_identical_weights(tmp_path, run, number):
    """Two loader workers and all augmentation on; three kills, each inside an epoch."""
    dataset = TinyDataset(tmp_path / "Tiny")
    run("plan", "-d", dataset.folder, "--preset", "laptop", "--workers", 0)
    length = ("--epochs", 6, "--iterations", 50, "--set", "training.validation_iterations=1")
    whole = ("train", 0, "-d", dataset.folder, "--work", tmp_path / "whole")
    run("plan", "-d", dataset.folder, "--work", tmp_path / "whole", "--preset", "laptop", "--workers", 0)
    run(*whole, *length, "--workers", 0)
    rng = np.random.default_rng(int(number))
    kills = 0
    while kills < 3:
        command = command_line("train", 0, "-d", dataset.folder, *length, "--workers", 2)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD) as process:
            for line in process.stderr:
                if "training and" in line:
                    break
            time.sleep(rng.uniform(2.5, 4.5))
            if process.poll() is not None:
                break
            process.send_signal(number)
            process.stderr.read()
            status = process.wait()
        if status == 0:
            break  # it was faster than the signal
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        assert not loaders_of(dataset), "loader processes outlive the training that was killed"
        kills += 1
    run("train", 0, "-d", dataset.folder, *length, "--workers", 2)
    a = (fold_folder(dataset) / "model.safetensors").read_bytes()
    b = tmp_path.joinpath("whole", *MODEL, "fold_0", "model.safetensors").read_bytes()
    assert kills > 0
    assert a == b


@pytest.mark.slow
def test_out_of_fold_means_out_of_fold(tmp_path, run):
    """One patient's label corrupted, the plan held: that patient's own mask stays bit-identical, those of all other folds change."""

    def masks(dataset):
        run("plan", "-d", dataset.folder, "--preset", "laptop", "--folds", "cv3", "--workers", 0)
        found = {}
        for fold in range(3):
            run("train", fold, "-d", dataset.folder, *QUICK, "--workers", 0, "--restart")
            folder = dataset.work / "default" / "3d_fullres" / "cv3" / f"fold_{fold}"
            run(
                "predict",
                "-d",
                dataset.folder,
                "-i",
                dataset.folder / "imagesTr",
                "-o",
                folder / "p",
                "-f",
                fold,
                "--save-probabilities",
                "--no-mirroring",
            )
            held_out = json.loads((dataset.work / "default" / "folds.json").read_text())["folds"][str(fold)]["validation"]
            found |= {
                name: (folder / "masks" / f"{name}.nii.gz").read_bytes() + (folder / "p" / f"{name}.probabilities.npy").read_bytes()
                for name in held_out
            }
            found[fold] = set(held_out)
        return found

    dataset = TinyDataset(tmp_path / "Tiny")
    clean = masks(dataset)
    corrupt = "case02"
    *_, mask = dataset.arrays(corrupt)
    dataset.write((1 - mask).astype(np.uint8), dataset.label(corrupt))
    dirty = masks(dataset)
    for fold in range(3):
        for name in clean[fold]:
            same = clean[name] == dirty[name]
            assert same == (corrupt in clean[fold]), name
