"""One function over many cases, in processes: streamed, bounded in memory, and never silent or stuck when a worker dies.

Processes come from loky. Each case leaves a mark in a scratch folder while it runs and its value when it is done, so that the death of a
process is told with the case, the signal and the memory it held, and what was finished before stays finished. Values come back through
that folder and not through the pool's pipe: a process that is killed half-way into a pipe would leave its reader waiting for ever.
"""

from autoseg.workers.outcome import Outcome
from autoseg.workers.pool import ONE_THREAD, map_cases

__all__ = ["ONE_THREAD", "Outcome", "map_cases"]
