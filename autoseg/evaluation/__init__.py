"""How good masks are: overlap, surface, lesions; by case, label, centre and overall."""

from autoseg.evaluation.evaluate import evaluate, find_masks
from autoseg.evaluation.evaluation import CaseScores, Evaluation, Mean, Summary
from autoseg.evaluation.scores import Scores, Settings, score_masks

__all__ = ["CaseScores", "Evaluation", "Mean", "Scores", "Settings", "Summary", "evaluate", "find_masks", "score_masks"]
