"""Study: what the tables hold, what is wrong with them, and what to write because of it.

In:    an Experiment.
Out:   a Study: facts in figures, and advice with its evidence. Nothing is written to disk.
Next:  `report` makes a page of it; the user changes the experiment.
"""

from batteries.prepare.study.facts import Advice as Advice
from batteries.prepare.study.facts import Study as Study
from batteries.prepare.study.survey import study as study

__all__ = ["Advice", "Study", "study"]
