"""What the user writes: Experiment, Stage, Metric; and what comes out of it: Predictions.

In:    one Python file.
Out:   checked objects.
Next:  `prepare`.
"""

from batteries.experiment.base import Batch as Batch
from batteries.experiment.base import Experiment as Experiment
from batteries.experiment.load import load_experiment as load_experiment
from batteries.experiment.metric import Metric as Metric
from batteries.experiment.stage import Stage as Stage

__all__ = ["Batch", "Experiment", "Metric", "Stage", "load_experiment"]
