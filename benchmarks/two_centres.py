"""A real clinical table of two hospitals: learn from one, test on the other, both ways, for two outcomes, beside controls.

    python benchmarks/two_centres.py [DATA] [--json FILE]

DATA is the folder of the real data (default: $AUTOSEG_DATA, or ../shared/data beside the checkout); its table is
hn_tables/vallieres2017_hn.csv. There are no images, so the model is one of clinical columns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from autoseg import files
from prognosis.cohort import load_cohort
from prognosis.declaration import read_declaration
from prognosis.models.registry import MODELS, Model
from prognosis.validation.bootstrap import LABEL
from prognosis.validation.nested import evaluate
from prognosis.validation.statement import number

DECLARATION = """
[table]
centre = "cohort"

[columns]
"Age" = "predictor"
"T_stage" = "predictor"
"N_stage" = "predictor"
"TNM_stage" = "predictor"
"HPV" = "predictor"
"subsite" = "predictor"

[targets.relapse]
title = "Locoregional or distant relapse, death censored"
kind = "survival"
event = "relapse_event"
time = "relapse_days"
unit = "days"
origin = "diagnosis"
horizon = 730

[targets.relapse_or_death]
title = "Relapse or death"
kind = "survival"
event = "relapse_or_death_event"
time = "relapse_or_death_days"
unit = "days"
origin = "diagnosis"
horizon = 730
"""
TARGETS = ("relapse", "relapse_or_death")
STAGES = ("T_stage", "N_stage", "TNM_stage")
CONTROLS = {**MODELS, "stage": Model("stage", "stages only", lambda groups: STAGES)}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = os.environ.get("AUTOSEG_DATA", Path(__file__).parents[2] / "shared" / "data")
    options.add_argument("data", nargs="?", type=Path, default=Path(usual))
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    table = chosen.data / "hn_tables" / "vallieres2017_hn.csv"
    if not table.is_file():
        sys.exit(f"{table}: not there. Name the folder of the real data, or set AUTOSEG_DATA")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cohort.toml").write_text(DECLARATION, encoding="utf-8")
        declaration = read_declaration(Path(folder) / "cohort.toml")
        cohorts = {target: load_cohort(table, None, target, declaration) for target in TARGETS}
    results = {target: evaluate(cohort, models=CONTROLS).to_json() for target, cohort in cohorts.items()}
    for target, result in results.items():
        print(f"\n{target}\n{text(result)}")
    print(f"\nintervals: {LABEL}")
    if chosen.json:
        files.write_json(chosen.json, results)
    return 0


def text(result: dict[str, Any]) -> str:
    """A line a model and direction, then both rungs' totals."""
    lines = [f"  {line}" for line in result["statement"][:-1]]
    rung = result["rungs"]["centre"]
    for position, fold in enumerate(rung["folds"]):
        train, test = (f"{fold[side]['events']} events of {fold[side]['patients']}" for side in ("train", "test"))
        lines.append(f"  test on {fold['name']} ({test}), learned elsewhere ({train}):")
        for model, told in rung["models"].items():
            lines.append(f"    {model:9s} C {number(told['by_fold'][position])}")
    for name, found in result["rungs"].items():
        lines.append(f"  all pairs within {'hospitals held out' if name == 'centre' else 'random folds and centres'}:")
        for model, told in found["models"].items():
            lines.append(f"    {model:9s} C {number(told['c_index'])}  Uno's C {number(told['uno_c'])}")
    lines += [f"  note: {note}" for note in result["notes"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
