"""One large PET/CT case predicted under a hard memory limit for the whole process tree.

    python benchmarks/memory_limit.py                                the full case: 512x512x200, full patch, 3 labels, limit 6 GB
    python benchmarks/memory_limit.py --slices 64 --in-plane 256     a smaller image: a few tiles
    python benchmarks/memory_limit.py --thin                         the full image through a network of few channels

Prints minutes, the tree's peak, and whether the mask lies on the CT's grid. The network's weights are random: time and memory do not depend
on what it learnt. The limit is set by a memory control group (version 2 or 1) below this process's own where one can be made; the kernel
then kills what goes above. Elsewhere the tree is watched every few milliseconds and killed when the sum of its processes' memory goes
above; the output says which of the two was used. Exit status 0 only if the case was finished, under the limit, on the right grid.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

GB = 10**9
CASE = "P1"
LABELS = {"background": 0, "GTVp": 1, "GTVn": 2}


def main() -> int:
    """Makes case and model, predicts in a child under the limit, reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slices", type=int, default=200)
    options.add_argument("--in-plane", type=int, default=512)
    options.add_argument("--slice-thickness", type=float, default=3.0, help="mm")
    options.add_argument("--limit", type=float, default=6.0, help="GB (10^9 bytes) for the whole process tree")
    options.add_argument("--thin", action="store_true", help="2 features a stage: everything but the network's own time and memory")
    options.add_argument("--folds", type=int, default=1)
    options.add_argument("--threads", type=int, help="compute threads (default: torch's)")
    options.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: by the processor")
    options.add_argument("--watch", action="store_true", help="watch the tree even where a control group can be made")
    options.add_argument("--json", type=Path, help="also write the figures here")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoseg-memory-") as scratch:
        folder = Path(scratch)
        prepare(folder, arguments)
        figures = predict(folder, arguments)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures["finished"] and figures["geometry equals the CT's"] and figures["peak GB"] <= arguments.limit else 1


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """A CT-like and a PET-like volume on one grid, and a model folder of the default 3d_fullres plan for 20 such cases."""
    from autoseg.images import Geometry, write_image
    from autoseg.inference.model_documents import ModelDataset
    from autoseg.inference.model_writing import write_model_folder
    from autoseg.networks import build_network
    from planners.fingerprint import CaseFingerprint, merge, sketch
    from planners.planner import plan
    from planners.settings import override

    shape = (arguments.slices, arguments.in_plane, arguments.in_plane)
    spacing = (arguments.slice_thickness, 0.9765625, 0.9765625)
    full = (200, 512, 512)  # the plan stays that of the full case
    rng = np.random.default_rng(0)
    sketches = (sketch(rng.normal(40, 60, 20_000)), sketch(rng.gamma(2, 2, 20_000)))
    cases = [
        CaseFingerprint(
            case=f"case_{number:02d}",
            patient=f"case_{number:02d}",
            centre="",
            spacing=spacing,
            shape=full,
            shape_after_crop=full,
            relative_size=1.0,
            orientation="LPS",
            foreground=sketches,
            body=sketches,
            label_voxels={1: 1000, 2: 1000},
            lesions={1: (1000.0,), 2: (1000.0,)},
        )
        for number in range(20)
    ]
    made = plan(merge(("CT", "PT"), LABELS, cases))
    if arguments.thin:
        stages = len(made.configurations["3d_fullres"].network.features)
        made = override(made, {"network.features": [2] * stages}, "3d_fullres")
    settings = made.configurations["3d_fullres"]
    networks = {str(fold): build_network(settings.network, 2, len(LABELS), 3, seed=fold).state_dict() for fold in range(arguments.folds)}
    dataset = ModelDataset("memory limit", ("CT", "PT"), LABELS, ".nii.gz", "3d_fullres")
    write_model_folder(folder / "model", plan=made, dataset=dataset, weights=networks)
    geometry = Geometry(shape, spacing, (-249.5, -249.5, 37.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    (folder / "in").mkdir()
    for index, (mean, std) in enumerate(((-200.0, 400.0), (1.0, 0.5))):
        planes = np.empty(shape, np.int16 if index == 0 else np.float32)
        for plane in planes:
            plane[:] = np.round(rng.normal(mean, std, shape[1:])) if index == 0 else np.abs(rng.normal(mean, std, shape[1:]))
        write_image(folder / "in" / f"{CASE}_{index:04d}.nii.gz", planes, geometry)
        del planes
    print(f"case {'x'.join(map(str, shape))} at {spacing} mm, patch {settings.patch_size}, {len(LABELS)} labels, {arguments.folds} fold(s)")


CHILD = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s")
from pathlib import Path
from autoseg.dataset.prediction import find_cases
from autoseg.inference.predictor import Predictor
folder, threads, precision = Path(sys.argv[1]), int(sys.argv[2]) or None, sys.argv[3] or None
predictor = Predictor(folder / "model", device="cpu", mirroring=False, threads=threads, precision=precision)
cases, failures, notes = find_cases(folder / "in", predictor.plan.channels)
predictor.predict_cases(cases, folder / "out", failures=failures)
"""


def predict(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Runs the prediction in a child process under the limit; the figures."""
    command = [sys.executable, "-c", CHILD, str(folder), str(arguments.threads or 0), arguments.precision or ""]
    limit = int(arguments.limit * GB)
    started = time.monotonic()
    with limiter(limit, arguments.watch) as guard:
        # The child waits for a line before it becomes the prediction, so that it is in its group before it takes any memory.
        child = subprocess.Popen(
            ["/bin/sh", "-c", 'read go; exec "$@"', "sh", *command], stdin=subprocess.PIPE, env=environment(), start_new_session=True
        )
        try:
            guard.enter(child.pid)
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.close()
            while child.poll() is None:
                guard.look()
                time.sleep(guard.interval)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        peak = guard.peak()
    minutes = (time.monotonic() - started) / 60
    return {
        "limit GB": arguments.limit,
        "enforced by": guard.name,
        "finished": child.returncode == 0,
        "exit status": child.returncode,
        "minutes": round(minutes, 2),
        "peak GB": round(peak / GB, 3),
        "geometry equals the CT's": child.returncode == 0 and same_grid(folder),
    }


def environment() -> dict[str, str]:
    """The child's environment: this checkout first on the path."""
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def same_grid(folder: Path) -> bool:
    """Whether the mask lies on the CT's grid, by SimpleITK's reading of both."""
    import SimpleITK

    ct = SimpleITK.ReadImage(str(folder / "in" / f"{CASE}_0000.nii.gz"))
    mask = SimpleITK.ReadImage(str(folder / "out" / f"{CASE}.nii.gz"))
    near = all(
        np.allclose(getattr(ct, f"Get{name}")(), getattr(mask, f"Get{name}")(), atol=1e-6) for name in ("Spacing", "Origin", "Direction")
    )
    return near and ct.GetSize() == mask.GetSize()


@dataclass
class Group:
    """A memory control group: the kernel counts the tree, page cache included, and kills it above the limit."""

    folder: Path
    name: str
    peak_file: str
    interval: float = 0.2
    highest: int = 0

    def enter(self, pid: int) -> None:
        """Puts a process, and so all its children, into the group."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def look(self) -> None:
        """Nothing to do: the kernel watches."""

    def peak(self) -> int:
        """Most bytes at any time."""
        return int((self.folder / self.peak_file).read_text())


@dataclass
class Watch:
    """Adds up the tree's memory every few milliseconds and kills it above the limit. Shared pages are counted once (PSS)."""

    limit: int
    name: str = "watching the sum of the tree's PSS every 20 ms (no control group could be made)"
    interval: float = 0.02
    pid: int = 0
    highest: int = field(default=0)

    def enter(self, pid: int) -> None:
        """Which process's tree is watched."""
        self.pid = pid

    def look(self) -> None:
        """Measures once; kills the tree when it is above the limit."""
        import psutil

        total = 0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
        self.highest = max(self.highest, total)
        if total > self.limit:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def peak(self) -> int:
        """Most bytes seen."""
        return self.highest


@contextlib.contextmanager
def limiter(limit: int, watch: bool) -> Iterator[Group | Watch]:
    """The hardest limit that this machine allows."""
    group = None if watch else make_group(limit)
    try:
        yield group or Watch(limit)
    finally:
        if group is not None:
            for _ in range(50):  # the kernel needs a moment to clear away the last process
                try:
                    group.folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)


def make_group(limit: int) -> Group | None:
    """A new control group with that limit below this process's own; None where none can be made."""
    for line in Path("/proc/self/cgroup").read_text().splitlines() if Path("/proc/self/cgroup").exists() else []:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            root, limits, peak, name = Path("/sys/fs/cgroup"), ("memory.max", "memory.swap.max"), "memory.peak", "cgroup v2"
        elif "memory" in controllers.split(","):
            root, limits, peak, name = (
                Path("/sys/fs/cgroup/memory"),
                ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
                "memory.max_usage_in_bytes",
                "cgroup v1",
            )
        else:
            continue
        folder = root / own.strip("/") / f"autoseg-limit-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limits[0]).write_text(str(limit))
            with contextlib.suppress(OSError):  # no swap to hide in, where the kernel accounts for it
                (folder / limits[1]).write_text("0" if name == "cgroup v2" else str(limit))
            (folder / peak).read_text()
            return Group(folder, f"{name}, hard limit by the kernel, page cache included", peak)
        except OSError:
            folder.rmdir()
    return None


if __name__ == "__main__":
    sys.exit(main())
