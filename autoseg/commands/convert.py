"""autoseg_convert: datasets from other layouts, and the generated one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.commands.entry import RESEARCH_ONLY, parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_convert", "Make a dataset folder from something else.")
    kinds = options.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_generated(kinds)
    _add_rule(kinds)
    sys.exit(run(_convert, options, arguments))


def _add_generated(kinds: Any) -> None:
    generated = kinds.add_parser(
        "generated",
        help="write the generated two-channel dataset (demo, tests)",
        description="Write generated CT and PET phantoms with two labels from two centres.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog=RESEARCH_ONLY,
    )
    generated.add_argument("output", type=Path, metavar="OUT", help="the dataset folder to write")
    generated.add_argument("--cases", type=int, default=24, metavar="N", help="training cases")
    generated.add_argument("--test-cases", type=int, default=8, metavar="N", help="test cases")
    generated.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same voxels")
    _add_common(generated)


def _add_rule(kinds: Any) -> None:
    rule = kinds.add_parser(
        "rule",
        help="the best threshold-and-component rule for a generated dataset, beside predicted masks",
        description="Fit the best threshold-and-component rule on the training cases; print its Dice on the test cases beside a network's.",
    )
    rule.add_argument("dataset", type=Path, metavar="DATASET", help="a generated dataset folder")
    rule.add_argument("prediction", type=Path, metavar="PREDICTION", help="folder of predicted masks of its test cases")
    _add_common(rule)


def _add_common(options: argparse.ArgumentParser) -> None:
    options.add_argument("--verbose", action="store_true", help="tell more, and show the traceback of an error")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE as JSON")


def _convert(parsed: argparse.Namespace) -> dict[str, Any]:
    return _RUN[parsed.kind](parsed)


def _generated(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.importers.generated import write_generated_dataset

    folder = write_generated_dataset(parsed.output, cases=parsed.cases, test_cases=parsed.test_cases, seed=parsed.seed)
    print(f"{folder}: {parsed.cases} training and {parsed.test_cases} test cases, seed {parsed.seed}")
    return {"dataset": str(folder), "cases": parsed.cases, "test_cases": parsed.test_cases, "seed": parsed.seed}


def _rule(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.errors import CasesFailed
    from autoseg.evaluation import evaluate
    from autoseg.importers.generated import best_threshold_rule, rule_beside_network, rule_on_test_cases
    from autoseg.importers.phantom import LABELS

    rules = best_threshold_rule(parsed.dataset)
    by_rule = rule_on_test_cases(rules, parsed.dataset)
    evaluation = evaluate(parsed.dataset / "labelsTs", parsed.prediction, labels=LABELS)
    if evaluation.failures:
        raise CasesFailed(list(evaluation.failures.values()), len(evaluation.cases))
    by_network = {name: evaluation.summary(name).means["dice"].mean for name in rules}
    print(rule_beside_network(rules, by_rule, by_network))
    return {"rule": by_rule, "network": by_network, "rules": {name: str(rule) for name, rule in rules.items()}}


_RUN = {"generated": _generated, "rule": _rule}


if __name__ == "__main__":
    main()
