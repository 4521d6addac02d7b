"""Batteries: the whole experiment flow of a PyTorch practitioner, each step usable alone.

    import batteries as bt

Names are loaded when first used, so `import batteries` is quick and loads no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batteries.combine.assign import assign_classes as assign_classes
    from batteries.combine.average import average as average
    from batteries.combine.blend import Blend as Blend
    from batteries.combine.blend import blend as blend
    from batteries.combine.blend import blend_entries as blend_entries
    from batteries.combine.blend_files import blend_files as blend_files
    from batteries.combine.calibrate import calibrate as calibrate
    from batteries.combine.calibrate import calibrate_entry as calibrate_entry
    from batteries.combine.check_submission import check_submission as check_submission
    from batteries.combine.climb import Climb as Climb
    from batteries.combine.decide import decide as decide
    from batteries.combine.decide import decide_entry as decide_entry
    from batteries.combine.fit_blend import fit_blend as fit_blend
    from batteries.combine.fitted import Fitted as Fitted
    from batteries.combine.fitted import fit_weights as fit_weights
    from batteries.combine.greedy import Greedy as Greedy
    from batteries.combine.nested import NestedEstimate as NestedEstimate
    from batteries.combine.nested import nested as nested
    from batteries.combine.ordinal import best_cuts as best_cuts
    from batteries.combine.pseudo import pseudo_label as pseudo_label
    from batteries.combine.pseudo import pseudo_table as pseudo_table
    from batteries.combine.pseudo import training_rows as training_rows
    from batteries.combine.reliability import reliability as reliability
    from batteries.combine.reproduce import reproduce as reproduce
    from batteries.combine.sample import Sample as Sample
    from batteries.combine.search import Search as Search
    from batteries.combine.simplex import Simplex as Simplex
    from batteries.combine.soup import soup as soup
    from batteries.combine.soup import soup_scores as soup_scores
    from batteries.combine.stack import add_predictions as add_predictions
    from batteries.combine.stack import stack as stack
    from batteries.combine.stack import stack_entries as stack_entries
    from batteries.combine.submission import Submission as Submission
    from batteries.combine.submission import submit as submit
    from batteries.combine.submit_file import submit_file as submit_file
    from batteries.combine.thresholds import best_threshold as best_threshold
    from batteries.experiment import Batch as Batch
    from batteries.experiment import Experiment as Experiment
    from batteries.experiment import Metric as Metric
    from batteries.experiment import Stage as Stage
    from batteries.experiment import load_experiment as load_experiment
    from batteries.experiment.prediction_files import read_predictions as read_predictions
    from batteries.experiment.predictions import Predictions as Predictions
    from batteries.experiment.schedule import Cosine as Cosine
    from batteries.experiment.schedule import OneCycle as OneCycle
    from batteries.experiment.schedule import Plateau as Plateau
    from batteries.experiment.schedule import Polynomial as Polynomial
    from batteries.experiment.schedule import Steps as Steps
    from batteries.improve.compare import compare as compare
    from batteries.improve.shakeup import shake_up as shake_up
    from batteries.improve.shakeup import shake_up_of as shake_up_of
    from batteries.improve.significance import corrected_t as corrected_t
    from batteries.prepare.alike import duplicate_groups as duplicate_groups
    from batteries.prepare.augment import SampleRandom as SampleRandom
    from batteries.prepare.augment import View as View
    from batteries.prepare.augment import Views as Views
    from batteries.prepare.augment import cutmix as cutmix
    from batteries.prepare.augment import feature_dropout as feature_dropout
    from batteries.prepare.augment import mixup as mixup
    from batteries.prepare.augment import random_affine as random_affine
    from batteries.prepare.augment import random_colour as random_colour
    from batteries.prepare.augment import random_erasing as random_erasing
    from batteries.prepare.augment import random_flip as random_flip
    from batteries.prepare.augment import random_resized_crop as random_resized_crop
    from batteries.prepare.augment import random_shift as random_shift
    from batteries.prepare.augment import smooth as smooth
    from batteries.prepare.augment import swap_noise as swap_noise
    from batteries.prepare.augment import token_drop as token_drop
    from batteries.prepare.decoded import Decoded as Decoded
    from batteries.prepare.decoded import decoded as decoded
    from batteries.prepare.environment import prepare_environment as prepare_environment
    from batteries.prepare.folds import Folds as Folds
    from batteries.prepare.folds import make_folds as make_folds
    from batteries.prepare.folds import split as split
    from batteries.prepare.inputs import Standardise as Standardise
    from batteries.prepare.inputs import category_codes as category_codes
    from batteries.prepare.inputs import word_codes as word_codes
    from batteries.prepare.made_elsewhere import FromFile as FromFile
    from batteries.prepare.made_elsewhere import Predefined as Predefined
    from batteries.prepare.multilabel import MultiLabel as MultiLabel
    from batteries.prepare.new import new as new
    from batteries.prepare.new import new_from as new_from
    from batteries.prepare.seed import derive_seed as derive_seed
    from batteries.prepare.seed import seed_everything as seed_everything
    from batteries.prepare.split_check import SplitCheck as SplitCheck
    from batteries.prepare.split_check import check_split as check_split
    from batteries.prepare.split_check import check_split_of as check_split_of
    from batteries.prepare.strategies import Grouped as Grouped
    from batteries.prepare.strategies import HoldOut as HoldOut
    from batteries.prepare.strategies import KFold as KFold
    from batteries.prepare.strategies import Stratified as Stratified
    from batteries.prepare.strategies import repeats as repeats
    from batteries.prepare.time_folds import Purged as Purged
    from batteries.prepare.time_folds import TimeOrdered as TimeOrdered
    from batteries.report.doctor import doctor as doctor
    from batteries.report.page import write_report as write_report
    from batteries.report.study import StudyReport as StudyReport
    from batteries.report.study import study as study
    from batteries.score.agreement import agreement as agreement
    from batteries.score.board import record as record
    from batteries.score.board import scores as scores
    from batteries.score.entry import Entry as Entry
    from batteries.score.entry import open_entry as open_entry
    from batteries.score.holdout import test as test
    from batteries.score.imported import Outside as Outside
    from batteries.score.imported import import_entry as import_entry
    from batteries.score.imported import outside_in as outside_in
    from batteries.score.leaderboard import leaderboard as leaderboard
    from batteries.score.ledger import Ledger as Ledger
    from batteries.score.resample import Blocks as Blocks
    from batteries.score.resample import Groups as Groups
    from batteries.score.verify import verify as verify
    from batteries.score.verify import verify_all as verify_all
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
    from batteries.train.weights import LoadReport as LoadReport
    from batteries.train.weights import load_weights as load_weights

__version__ = "0.1.0"

_HOME = {
    "Balanced": "train.samplers",
    "Batch": "experiment",
    "Blend": "combine.blend",
    "Blocks": "score.resample",
    "ByLength": "train.samplers",
    "Checkpoint": "train.checkpoint",
    "Checkpoints": "train.checkpoint",
    "Climb": "combine.climb",
    "Cosine": "experiment.schedule",
    "Decoded": "prepare.decoded",
    "Device": "train.device",
    "Entry": "score.entry",
    "Experiment": "experiment",
    "Fitted": "combine.fitted",
    "Folds": "prepare.folds",
    "FromFile": "prepare.made_elsewhere",
    "Greedy": "combine.greedy",
    "Grouped": "prepare.strategies",
    "Groups": "score.resample",
    "HoldOut": "prepare.strategies",
    "KFold": "prepare.strategies",
    "Ledger": "score.ledger",
    "LoadReport": "train.weights",
    "Loader": "train.loaders",
    "Metric": "experiment",
    "MetricLog": "train.log",
    "MultiLabel": "prepare.multilabel",
    "NestedEstimate": "combine.nested",
    "OneCycle": "experiment.schedule",
    "Outside": "score.imported",
    "Plateau": "experiment.schedule",
    "Polynomial": "experiment.schedule",
    "Predefined": "prepare.made_elsewhere",
    "Predictions": "experiment.predictions",
    "Purged": "prepare.time_folds",
    "Run": "train.record",
    "Sample": "combine.sample",
    "SampleRandom": "prepare.augment",
    "Search": "combine.search",
    "Shuffled": "train.samplers",
    "Simplex": "combine.simplex",
    "SplitCheck": "prepare.split_check",
    "Stage": "experiment",
    "Standardise": "prepare.inputs",
    "Steps": "experiment.schedule",
    "Stratified": "prepare.strategies",
    "StudyReport": "report.study",
    "Submission": "combine.submission",
    "TimeOrdered": "prepare.time_folds",
    "Tracker": "train.trackers",
    "TrainState": "train.state",
    "View": "prepare.augment",
    "Views": "prepare.augment",
    "WandB": "train.trackers",
    "Weighted": "train.samplers",
    "add_predictions": "combine.stack",
    "agreement": "score.agreement",
    "assign_classes": "combine.assign",
    "average": "combine.average",
    "average_checkpoints": "train.average",
    "best_cuts": "combine.ordinal",
    "best_threshold": "combine.thresholds",
    "blend": "combine.blend",
    "blend_entries": "combine.blend",
    "blend_files": "combine.blend_files",
    "calibrate": "combine.calibrate",
    "calibrate_entry": "combine.calibrate",
    "category_codes": "prepare.inputs",
    "check_split": "prepare.split_check",
    "check_split_of": "prepare.split_check",
    "check_submission": "combine.check_submission",
    "compare": "improve.compare",
    "corrected_t": "improve.significance",
    "cutmix": "prepare.augment",
    "decide": "combine.decide",
    "decide_entry": "combine.decide",
    "decoded": "prepare.decoded",
    "derive_seed": "prepare.seed",
    "doctor": "report.doctor",
    "duplicate_groups": "prepare.alike",
    "feature_dropout": "prepare.augment",
    "fit_blend": "combine.fit_blend",
    "fit_weights": "combine.fitted",
    "import_entry": "score.imported",
    "leaderboard": "score.leaderboard",
    "load_experiment": "experiment",
    "load_weights": "train.weights",
    "make_folds": "prepare.folds",
    "mixup": "prepare.augment",
    "nested": "combine.nested",
    "new": "prepare.new",
    "new_from": "prepare.new",
    "open_entry": "score.entry",
    "outside_in": "score.imported",
    "parameter_groups": "train.groups",
    "pick_device": "train.distributed",
    "prepare_environment": "prepare.environment",
    "pseudo_label": "combine.pseudo",
    "pseudo_table": "combine.pseudo",
    "random_affine": "prepare.augment",
    "random_colour": "prepare.augment",
    "random_erasing": "prepare.augment",
    "random_flip": "prepare.augment",
    "random_resized_crop": "prepare.augment",
    "random_shift": "prepare.augment",
    "read_predictions": "experiment.prediction_files",
    "recompute_batch_norm": "train.average",
    "record": "score.board",
    "rehearse": "train.rehearse",
    "reliability": "combine.reliability",
    "repeats": "prepare.strategies",
    "reproduce": "combine.reproduce",
    "scores": "score.board",
    "seed_everything": "prepare.seed",
    "shake_up": "improve.shakeup",
    "shake_up_of": "improve.shakeup",
    "smooth": "prepare.augment",
    "soup": "combine.soup",
    "soup_scores": "combine.soup",
    "split": "prepare.folds",
    "stack": "combine.stack",
    "stack_entries": "combine.stack",
    "study": "report.study",
    "submit": "combine.submission",
    "submit_file": "combine.submit_file",
    "swap_noise": "prepare.augment",
    "test": "score.holdout",
    "token_drop": "prepare.augment",
    "train_run": "train.run",
    "training_rows": "combine.pseudo",
    "verify": "score.verify",
    "verify_all": "score.verify",
    "word_codes": "prepare.inputs",
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
