"""Batteries: the whole experiment flow of a PyTorch practitioner, each step usable alone.

    import batteries as bt

Names are loaded when first used, so `import batteries` is quick and loads no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batteries.combine.average import average as average
    from batteries.combine.blend import Blend as Blend
    from batteries.combine.blend import blend as blend
    from batteries.combine.blend import blend_entries as blend_entries
    from batteries.combine.submission import Submission as Submission
    from batteries.combine.submission import submit as submit
    from batteries.experiment import Batch as Batch
    from batteries.experiment import Experiment as Experiment
    from batteries.experiment import Metric as Metric
    from batteries.experiment import Stage as Stage
    from batteries.experiment import load_experiment as load_experiment
    from batteries.experiment.predictions import Predictions as Predictions
    from batteries.experiment.schedule import Cosine as Cosine
    from batteries.experiment.schedule import OneCycle as OneCycle
    from batteries.experiment.schedule import Plateau as Plateau
    from batteries.experiment.schedule import Polynomial as Polynomial
    from batteries.experiment.schedule import Steps as Steps
    from batteries.improve.compare import compare as compare
    from batteries.prepare.augment import SampleRandom as SampleRandom
    from batteries.prepare.augment import random_shift as random_shift
    from batteries.prepare.environment import prepare_environment as prepare_environment
    from batteries.prepare.folds import Folds as Folds
    from batteries.prepare.folds import Grouped as Grouped
    from batteries.prepare.folds import KFold as KFold
    from batteries.prepare.folds import Stratified as Stratified
    from batteries.prepare.folds import make_folds as make_folds
    from batteries.prepare.folds import split as split
    from batteries.prepare.new import new as new
    from batteries.prepare.seed import derive_seed as derive_seed
    from batteries.prepare.seed import seed_everything as seed_everything
    from batteries.prepare.study import study as study
    from batteries.report.page import write_report as write_report
    from batteries.score.board import record as record
    from batteries.score.board import scores as scores
    from batteries.score.entry import Entry as Entry
    from batteries.score.entry import open_entry as open_entry
    from batteries.score.holdout import test as test
    from batteries.score.leaderboard import leaderboard as leaderboard
    from batteries.score.ledger import Ledger as Ledger
    from batteries.train.average import average_checkpoints as average_checkpoints
    from batteries.train.average import recompute_batch_norm as recompute_batch_norm
    from batteries.train.checkpoint import Checkpoint as Checkpoint
    from batteries.train.checkpoint import Checkpoints as Checkpoints
    from batteries.train.device import Device as Device
    from batteries.train.distributed import pick_device as pick_device
    from batteries.train.groups import parameter_groups as parameter_groups
    from batteries.train.loaders import Loader as Loader
    from batteries.train.log import MetricLog as MetricLog
    from batteries.train.record import Run as Run
    from batteries.train.rehearse import rehearse as rehearse
    from batteries.train.run import train_run as train_run
    from batteries.train.samplers import Balanced as Balanced
    from batteries.train.samplers import ByLength as ByLength
    from batteries.train.samplers import Shuffled as Shuffled
    from batteries.train.samplers import Weighted as Weighted
    from batteries.train.state import TrainState as TrainState
    from batteries.train.trackers import Tracker as Tracker
    from batteries.train.trackers import WandB as WandB
    from batteries.train.verify import verify as verify
    from batteries.train.weights import LoadReport as LoadReport
    from batteries.train.weights import load_weights as load_weights

__version__ = "0.1.0"

_HOME = {
    "Balanced": "train.samplers",
    "Batch": "experiment",
    "Blend": "combine.blend",
    "ByLength": "train.samplers",
    "Checkpoint": "train.checkpoint",
    "Checkpoints": "train.checkpoint",
    "Cosine": "experiment.schedule",
    "Device": "train.device",
    "Entry": "score.entry",
    "Experiment": "experiment",
    "Folds": "prepare.folds",
    "Grouped": "prepare.folds",
    "KFold": "prepare.folds",
    "Ledger": "score.ledger",
    "LoadReport": "train.weights",
    "Loader": "train.loaders",
    "Metric": "experiment",
    "MetricLog": "train.log",
    "OneCycle": "experiment.schedule",
    "Plateau": "experiment.schedule",
    "Polynomial": "experiment.schedule",
    "Predictions": "experiment.predictions",
    "Run": "train.record",
    "SampleRandom": "prepare.augment",
    "Shuffled": "train.samplers",
    "Stage": "experiment",
    "Steps": "experiment.schedule",
    "Stratified": "prepare.folds",
    "Submission": "combine.submission",
    "Tracker": "train.trackers",
    "TrainState": "train.state",
    "WandB": "train.trackers",
    "Weighted": "train.samplers",
    "average": "combine.average",
    "average_checkpoints": "train.average",
    "blend": "combine.blend",
    "blend_entries": "combine.blend",
    "compare": "improve.compare",
    "derive_seed": "prepare.seed",
    "leaderboard": "score.leaderboard",
    "load_experiment": "experiment",
    "load_weights": "train.weights",
    "make_folds": "prepare.folds",
    "new": "prepare.new",
    "open_entry": "score.entry",
    "parameter_groups": "train.groups",
    "pick_device": "train.distributed",
    "prepare_environment": "prepare.environment",
    "random_shift": "prepare.augment",
    "recompute_batch_norm": "train.average",
    "record": "score.board",
    "rehearse": "train.rehearse",
    "scores": "score.board",
    "seed_everything": "prepare.seed",
    "split": "prepare.folds",
    "study": "prepare.study",
    "submit": "combine.submission",
    "test": "score.holdout",
    "train_run": "train.run",
    "verify": "train.verify",
    "write_report": "report.page",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'batteries' has no attribute {name!r}")
    value = getattr(import_module(f"batteries.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
