"""Several processes train one model: what one process would, to float64's last digits."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batteries as bt
import device_suite
from batteries.errors import ExperimentError, NonFiniteError
from batteries.experiment import load_experiment
from batteries.experiment.predictions import Predictions
from batteries.files import read_sealed
from batteries.train.average import recompute_batch_norm
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.log import read_metrics
from batteries.train.loop import predict, train, training_inputs
from batteries.train.run import train_run
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState
from processes import Ranks, command, ranks_of
from test_resume import assert_same, outcome, saved_in_the_middle_of_an_epoch, toy_in

CPU = Device.pick("cpu")


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks_of(2) as started:
        yield started


@pytest.fixture(scope="module")
def three() -> Iterator[Ranks]:
    with ranks_of(3) as started:
        yield started


# --- every device keeps its promises


@pytest.mark.parametrize("promise", device_suite.PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("dp", [False, True])
def test_one_process_keeps(promise: Callable[[Device], None], dp: bool) -> None:
    promise(Device.pick("cpu", dp=dp))


@pytest.mark.parametrize("promise", device_suite.PROMISES, ids=lambda promise: promise.__name__)
def test_two_processes_keep(two: Ranks, promise: Callable[[Device], None]) -> None:
    two(promise)


# --- the loop


@dataclass(kw_only=True)
class Points(bt.Experiment):
    """A classifier of points, or of small images, in float64."""

    kind: str = "norm"
    moved: bool = False
    metric = bt.Metric.accuracy()
    log_every = 2

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        layers = {  # no bias before a norm: its gradient is zero but for rounding, which AdamW makes steps of
            "plain": [nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)],
            "wide": [nn.Linear(4, 1 << 15), nn.Tanh(), nn.Linear(1 << 15, 3)],
            "norm": [nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)],
            "images": [
                nn.Unflatten(1, (1, 2, 2)),
                nn.Conv2d(1, 6, 2, padding=1, bias=False),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(54, 3),
            ],
        }
        return nn.Sequential(*layers[self.kind]).double()

    def training_step(self, model: nn.Module, batch: bt.Batch) -> dict[str, Any]:
        outputs = model(batch.inputs)
        return {"loss": self.loss(outputs, batch.targets), "size": outputs.square().mean()}

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        return batch._replace(inputs=batch.inputs + 0.3 * random.uniform(4)) if self.moved else batch


def loader(rows: int, batch_size: int) -> Loader:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return Loader((inputs, (inputs[:, :3] * 3).argmax(dim=1)), batch_size=batch_size, seed=11, sampler=Shuffled())


def trained(
    place: Device,
    experiment: Points,
    stage: bt.Stage,
    rows: int,
    batch_size: int,
    spoilt: int | None = None,
    pieces: int = 1,
) -> dict[str, Any]:
    """All that a training leaves behind; the row `spoilt` is NaN, batches are computed in some pieces."""
    state = TrainState.begin(experiment, stage, experiment.model(), place)
    state.split = pieces
    batches = loader(rows, batch_size)
    if spoilt is not None:
        batches.dataset[0][spoilt] = float("nan")
    windows: list[dict[str, float]] = []

    def note() -> None:
        if state.step % experiment.log_every == 0:
            windows.append({**state.means(window=True), "norm": float(state.grad_norm)})  # type: ignore[arg-type]

    epochs = [dataclasses.asdict(epoch) for epoch in train(experiment, stage, state, batches, place, after_update=note)]
    if stage.average == "swa":
        inputs = training_inputs(experiment, batches, place, epoch=stage.epochs - 1)
        recompute_batch_norm(state.scored, inputs, experiment.predict_step, gather=place.gather)
    return {
        "model": dict(state.model.state_dict()),
        "scored": dict(state.scored.state_dict()),
        "optimizer": state.optimizer.state_dict(),
        "position": (state.epoch, state.update, state.step, state.samples),
        "epochs": epochs,
        "windows": windows,
        "skipped": state.not_finite,
        "predictions": torch.from_numpy(predict(experiment, state.scored, loader(rows, batch_size), place)),
    }


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "plain layers": ({"kind": "plain"}, {}, 53, 8),
    "odd batches": ({"kind": "plain"}, {}, 53, 7),
    "one sample left over": ({"kind": "plain"}, {}, 41, 8),
    "one sample a batch": ({"kind": "plain"}, {}, 7, 1),
    "batch norm": ({}, {}, 53, 8),
    "batch norm, two left over": ({}, {}, 50, 8),
    "images": ({"kind": "images"}, {}, 47, 9),
    "groups with a short last one": ({}, {"accumulate": 3}, 53, 7),
    "groups and one sample left over": ({"kind": "plain"}, {"accumulate": 4}, 41, 8),
    "clipped": ({}, {"clip": 0.1, "clip_value": 0.05, "accumulate": 2}, 53, 8),
    "ema": ({}, {"average": "ema", "decay": 0.9}, 53, 8),
    "swa": ({"kind": "images", "moved": True}, {"average": "swa"}, 53, 8),
    "augmented, one-cycle": ({"moved": True}, {"schedule": "one-cycle", "warmup": 0.1}, 53, 8),
    "frozen norms": ({}, {"freeze": ("0.*", "1.*")}, 53, 8),
    "recomputed": ({"kind": "images"}, {"recompute": ("1", "2")}, 53, 8),
    "rates by layer": ({}, {"layer_decay": 0.7, "schedule": "step"}, 53, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(two: Ranks, case: str) -> None:
    fields, settings, rows, batch_size = CASES[case]
    assert_equal_to_one(two, Points(**fields), bt.Stage("all", epochs=3, lr=0.02, **settings), rows, batch_size)


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"average": "ema"}])
def test_a_last_batch_smaller_than_the_processes_is_computed_by_all_and_counts_once(
    three: Ranks, settings: dict[str, Any]
) -> None:
    """50 rows in batches of 8 leave two, for three processes with batch norms."""
    assert_equal_to_one(three, Points(), bt.Stage("all", epochs=3, lr=0.02, **settings), 50, 8)


@pytest.mark.parametrize("kind", ["plain", "images", "wide"])
def test_three_processes_train_what_one_does(three: Ranks, kind: str) -> None:
    assert_equal_to_one(three, Points(kind=kind), bt.Stage("all", epochs=2, lr=0.02, clip=0.5), 53, 8)


def assert_equal_to_one(ranks: Ranks, experiment: Points, stage: bt.Stage, rows: int, batch_size: int) -> None:
    found = ranks(trained, experiment, stage, rows, batch_size)
    wanted = trained(CPU, experiment, stage, rows, batch_size)
    # the same sums in another order: only float64's last digits may differ
    torch.testing.assert_close(found[0], wanted, rtol=1e-10, atol=1e-10)
    for other in found[1:]:  # no process ever drifts from another
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_batches_of_a_group_equal_one_large_batch_on_one_process_and_on_two(two: Ranks, clip: float | None) -> None:
    """53 rows are 7 batches of 8, so groups of 4 and of 3, whose last batch has 5; or batches of 32 and 21."""
    experiment = Points(kind="plain", moved=True)
    large = trained(CPU, experiment, bt.Stage("all", epochs=3, lr=0.02, clip=clip), 53, 32)["model"]
    small = bt.Stage("all", epochs=3, lr=0.02, clip=clip, accumulate=4)
    for found in (trained(CPU, experiment, small, 53, 8), *two(trained, experiment, small, 53, 8)):
        torch.testing.assert_close(found["model"], large, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_an_update_that_is_not_finite_in_one_process_is_skipped_by_all_as_by_one(two: Ranks, kind: str) -> None:
    stage = bt.Stage("all", epochs=3, lr=0.02, on_nan="skip", accumulate=2)
    wanted = trained(CPU, Points(kind=kind), stage, 53, 8, 17)
    for found in two(trained, Points(kind=kind), stage, 53, 8, 17):
        torch.testing.assert_close(found["model"], wanted["model"], rtol=1e-10, atol=1e-10)
        assert found["skipped"] == wanted["skipped"] == 3


def test_batches_in_pieces_give_the_same_update_and_as_many_pieces_everywhere(two: Ranks) -> None:
    """As after memory ran out in one process, and the run went on with two; 9 are 5 and 4."""
    stage = bt.Stage("all", epochs=2, lr=0.02)
    plain = Points(kind="plain")
    wanted = trained(CPU, plain, stage, 53, 9)
    for found in two(trained, plain, stage, 53, 9, None, 4):
        torch.testing.assert_close(found["model"], wanted["model"], rtol=1e-10, atol=1e-10)
    one, other = two(trained, Points(), stage, 53, 9, None, 3)  # norms are those of the pieces
    torch.testing.assert_close(other, one, rtol=0, atol=0)


class Following(nn.Module):
    """A layer that keeps the mean of what it saw, as a codebook does; a user's own buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen.lerp_(inputs.detach().mean(dim=0), 0.1)
        return inputs - self.seen


@dataclass(kw_only=True)
class Codebook(Points):
    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(Following(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("average", [None, "ema"])
def test_buffers_that_follow_the_samples_of_a_process_are_rank_0s_in_all_when_an_epoch_ends(
    two: Ranks, average: Any
) -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02, average=average)
    one, other = two(trained, Codebook(), stage, 53, 8)
    assert one["scored"]["0.seen"].abs().max() > 0
    for part in ("model", "scored", "predictions"):
        torch.testing.assert_close(other[part], one[part], rtol=0, atol=0)


def stopped(place: Device) -> tuple[str, int]:
    """A loss that is infinite in one process while its gradient is not, under fp16: the scaler sees gradients only."""
    stage = bt.Stage("all", epochs=2, precision="fp16")
    state = TrainState.begin(Points(kind="plain"), stage, nn.Sequential(nn.Linear(4, 3)), place)

    class Infinite(Points):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Tensor:
            loss = nn.functional.cross_entropy(model(batch.inputs.float()), batch.targets)
            return loss + float("inf") if place.rank == place.world - 1 and state.step == 2 else loss

    with pytest.raises(NonFiniteError) as caught:
        list(train(Infinite(kind="plain"), stage, state, loader(53, 9), place))
    return str(caught.value), state.step


def test_under_fp16_a_loss_that_is_not_finite_in_one_process_stops_all(two: Ranks) -> None:
    for text, step in [stopped(CPU), *two(stopped)]:
        assert "the loss or its gradient became NaN or infinite in epoch 1, update 3" in text
        assert step == 2


class StoppedAt(Exception):
    """The test has seen enough."""


def gone_on_with(place: Device, kind: str, stage: bt.Stage, update: int) -> tuple[Any, Any]:
    """What a training in float32 ends with, and one that was stopped after an update and begun again."""

    class Single(Points):
        def model(self) -> nn.Module:
            return super().model().float()

        def training_step(self, model: nn.Module, batch: bt.Batch) -> dict[str, Any]:
            return super().training_step(model, batch._replace(inputs=batch.inputs.float()))

    def to(stop: int, saved: dict[str, Any] | None = None) -> dict[str, Any]:
        experiment = Single(kind=kind)
        state = TrainState.begin(experiment, stage, experiment.model(), place)
        if saved is not None:
            state.load_state_dict(saved)

        def stop_there() -> None:
            if state.step == stop:
                raise StoppedAt

        with suppress(StoppedAt):
            list(train(experiment, stage, state, loader(53, 8), place, after_update=stop_there))
        return copy.deepcopy(state.state_dict())

    whole = to(0)
    return whole["model"], to(0, to(update))["model"]


@pytest.mark.parametrize(
    ("kind", "accumulate"), [("plain", 1), ("plain", 3), ("norm", 1), ("norm", 3), ("images", 1), ("wide", 1)]
)
def test_three_processes_stopped_after_some_updates_end_with_the_bits_of_three_never_stopped(
    three: Ranks, kind: str, accumulate: int
) -> None:
    """Three numbers have sums that depend on their order, and in float32 it shows."""
    stage = bt.Stage("all", epochs=3, lr=0.02, accumulate=accumulate)
    for whole, parts in three(gone_on_with, kind, stage, 2):
        torch.testing.assert_close(parts, whole, rtol=0, atol=0)


@dataclass(kw_only=True)
class TwoHeads(Points):
    """Its second head learns nothing, or in every other batch."""

    both: bool = False

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.ModuleDict({"used": nn.Linear(4, 3), "spare": nn.Linear(4, 3)}).double()

    def training_step(self, model: Any, batch: bt.Batch) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        head = model["spare"] if self.both and self.calls % 2 else model["used"]
        return self.loss(head(batch.inputs), batch.targets)

    def predict_step(self, model: Any, inputs: Any) -> Tensor:
        return model["used"](inputs)


def refused(place: Device, experiment: Points, stage: bt.Stage) -> tuple[str, int]:
    state = TrainState.begin(experiment, stage, experiment.model(), place)
    with pytest.raises(ExperimentError) as caught:
        list(train(experiment, stage, state, loader(53, 9), place))
    return str(caught.value), state.step


def test_parameters_without_a_gradient_are_named_before_the_update_and_may_be_frozen(two: Ranks) -> None:
    for text, step in two(refused, TwoHeads(), bt.Stage("all", epochs=2)):
        assert text.startswith("spare.weight, spare.bias got no gradient in an update; several processes need one")
        assert step == 0
    frozen = bt.Stage("all", epochs=2, freeze=("spare.*",))
    wanted = trained(CPU, TwoHeads(), frozen, 53, 9)
    torch.testing.assert_close(two(trained, TwoHeads(), frozen, 53, 9)[0], wanted, rtol=1e-10, atol=1e-10)
    for text, _ in two(refused, TwoHeads(both=True), bt.Stage("all", epochs=2, accumulate=2)):
        assert text.startswith("spare.weight, spare.bias got no gradient in an update")


# --- whole runs

EXACT = '''
    per_sample: bool = False
    log: str = ""

    def dataset(self, rows, *, training):
        """In float64; with `per_sample` a torch Dataset, which workers can read."""
        points = torch.from_numpy(rows.select("x", "y").to_numpy().astype("float64"))
        data = points, torch.from_numpy(self.targets(rows).copy())
        return torch.utils.data.StackDataset(*data) if self.per_sample else data

    def model(self):
        hidden = nn.Linear(2, self.width, bias=False)  # a bias before a norm has no gradient but rounding
        return nn.Sequential(hidden, nn.BatchNorm1d(self.width), nn.ReLU(), nn.Linear(self.width, 3)).double()

    def training_step(self, model, batch):
        """Do to ourselves what the test asks for at the n-th batch of this process; note which rows were seen."""
        import os, signal

        type(self).batches = getattr(type(self), "batches", 0) + 1
        name, _, number = os.environ.get("TOY_SIGNAL", "").partition(":")
        if name and type(self).batches == int(number):
            os.kill(os.getpid(), getattr(signal, name))
        if os.environ.get("TOY_ROWS"):
            with open(os.environ["TOY_ROWS"] + os.environ.get("RANK", ""), "a") as file:
                file.write(" ".join(map(str, batch.rows.tolist())) + "\\n")
        return super().training_step(model, batch)

    def stages(self):
        more = {"accumulate": self.accumulate, "average": self.average}
        return [
            bt.Stage("head", epochs=3, lr=self.lr, schedule=bt.Plateau(patience=0), **more),
            bt.Stage("all", epochs=2, lr=self.lr / 2, start="best", clip=0.5, **more),
            bt.Stage("end", epochs=1, lr=self.lr / 4, start="average", **more),
        ]

    def former_stages(self)'''


def exact_toy(folder: Path) -> Path:
    """An experiment folder whose toy computes in float64, without dropout."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (Path(__file__).parent / "toy.py").read_text()
    (folder / "experiment.py").write_text(text.replace("\n    def stages(self)", EXACT, 1))
    return folder


def run_of(place: Device, folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Predictions, scores and weights of a whole run."""
    experiment = load_experiment(folder, values=fields)
    run = train_run(experiment, folder / "runs", device=place, progress=False)
    return result_of(run.folder) if place.is_main else {}


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("oof.parquet", "test.parquet"):
        predictions = Predictions.load(folder / name)
        found[name] = predictions.ids.to_list(), predictions.values.dtype.name, predictions.values.tolist()
    for path in sorted(folder.rglob("fold.json")):
        found[path.parent.name] = read_sealed(path)["scores"]
    found["numbers"] = [
        {name: value for name, value in row.items() if isinstance(value, int | float)}
        for path in sorted(folder.rglob("metrics.jsonl"))
        for row in read_metrics(path)
    ]
    found["weights"] = {
        str(path.relative_to(folder)): load(path)
        for path in sorted(folder.rglob("best.pt")) + sorted(folder.rglob("last.pt"))
    }
    return found


def load(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)
    parts = {part: state[part] for part in ("model", "average") if part in state}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_predictions_and_scores_are_the_same_for_any_number_of_processes_and_of_loader_workers(
    two: Ranks, tmp_path: Path, average: str
) -> None:
    fields = {"average": average, "accumulate": 2, "batch_size": 7, "per_sample": True}
    wanted = run_of(CPU, exact_toy(tmp_path / "one"), fields)
    sys.modules.pop("experiment", None)
    for number, workers in enumerate((0, 1, 2) if average == "ema" else (1,)):
        folder = exact_toy(tmp_path / f"two-{number}")
        found = two(run_of, folder, {**fields, "num_workers": workers})[0]
        for name in wanted:
            if name in ("weights", "numbers"):  # the same sums in another order
                torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10)
            else:  # stored as float32: to the bit
                assert found[name] == wanted[name]
        if workers:
            alone = run_of(CPU, exact_toy(tmp_path / f"one-{number}"), {**fields, "num_workers": workers})
            sys.modules.pop("experiment", None)
            assert_bits(alone, wanted)


def assert_bits(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    torch.testing.assert_close(found["weights"], wanted["weights"], rtol=0, atol=0)
    assert {**found, "weights": None} == {**wanted, "weights": None}


# --- stopped, and gone on with

HARD = ("--set", "average=ema", "--set", "accumulate=3", "--set", "batch_size=4", "--device", "cpu")


def train_in(folder: Path, world: int, *more: str, **variables: str) -> tuple[list[int], str]:
    """Exit codes by rank and all that was printed."""
    ended = command(folder, world, "train", *HARD, *more, **variables)
    return [code for code, _ in ended], "".join(text for _, text in ended)


@pytest.mark.parametrize(
    "parts",
    [
        ((1, "SIGTERM:4"), (2, "SIGINT:13"), (1, "SIGTERM:20"), (2, "")),
        ((1, "SIGTERM:8"), (2, "SIGTERM:6"), (3, "SIGINT:7"), (1, "")),  # first, after the last update of an epoch
    ],
)
def test_a_run_goes_on_under_another_number_of_processes_in_the_middle_of_an_epoch(
    tmp_path: Path, parts: tuple[tuple[int, str], ...]
) -> None:
    """Every row once in every epoch, and the weights of a run of one process."""
    whole = exact_toy(tmp_path / "whole")
    assert train_in(whole, 1)[0] == [0]
    folder = exact_toy(tmp_path / "changed")
    seen = {"TOY_ROWS": str(tmp_path / "rows")}
    for world, signal in parts:
        codes, printed = train_in(folder, world, TOY_SIGNAL=signal, **seen)
        assert codes == [{"": 0, "SIGT": 143, "SIGI": 130}[signal[:4]]] * world, printed
    found, wanted = result_of(folder / "runs/toy-001"), result_of(whole / "runs/toy-001")
    for name in wanted:
        if name in ("weights", "numbers"):
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10)
        else:
            assert found[name] == wanted[name]
    rows = [int(row) for path in tmp_path.glob("rows*") for row in path.read_text().split()]
    if max(world for world, _ in parts) < 3:  # the last batch has two rows, and three processes compute all of it
        assert Counter(rows) == dict.fromkeys(range(30), 2 * 6)  # two folds of 30 rows, six epochs each


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a run of two processes that nobody stopped ends with, and its moments at which it could be killed."""
    folder = toy_in(tmp_path_factory.mktemp("pair"))
    codes, printed = train_in(folder, 2)
    assert codes == [0, 0], printed
    return outcome(folder), int((folder / "printed-0.txt").read_text().rpartition("moments: ")[2])


@pytest.mark.parametrize(("rank", "share"), [("0", 0.1), ("0", 0.37), ("0", 0.62), ("0", 0.9), ("1", 0.5)])
def test_two_processes_killed_at_any_moment_end_as_if_never_killed(
    tmp_path: Path, pair: tuple[dict[str, Any], int], rank: str, share: float
) -> None:
    """With dropout, whose numbers are each process's own; byte for byte."""
    wanted, moments = pair
    toy_in(tmp_path)
    at = int(share * moments) if rank == "0" else 40  # the second process writes nothing: it has fewer moments
    codes, printed = train_in(tmp_path, 2, KILL_AT=str(at), KILL_RANK=rank)
    assert -9 in codes, printed
    codes, printed = train_in(tmp_path, 2)
    assert codes == [0, 0], printed
    assert_same(outcome(tmp_path), wanted)


def test_three_processes_killed_end_as_if_never_killed(tmp_path: Path) -> None:
    folders = [toy_in(tmp_path / name) for name in ("whole", "killed")]
    codes, printed = train_in(folders[0], 3)
    assert codes == [0, 0, 0], printed
    moments = int((folders[0] / "printed-0.txt").read_text().rpartition("moments: ")[2])
    codes, printed = train_in(folders[1], 3, KILL_AT=str(int(0.62 * moments)), KILL_RANK="0")
    assert -9 in codes, printed
    codes, printed = train_in(folders[1], 3)
    assert codes == [0, 0, 0], printed
    assert_same(outcome(folders[1]), outcome(folders[0]))


@pytest.mark.parametrize(("rank", "batch", "signal", "code"), [("0", 8, "SIGINT", 130), ("1", 66, "SIGTERM", 143)])
def test_a_signal_to_one_process_stops_both_after_a_save_and_they_go_on_to_the_same_end(
    tmp_path: Path, pair: tuple[dict[str, Any], int], rank: str, batch: int, signal: str, code: int
) -> None:
    toy_in(tmp_path)
    text = (tmp_path / "experiment.py").read_text()
    (tmp_path / "experiment.py").write_text(
        text.replace("if name and", "if os.environ.get('RANK') == os.environ.get('TOY_RANK') and name and")
    )
    codes, printed = train_in(tmp_path, 2, TOY_SIGNAL=f"{signal}:{batch}", TOY_RANK=rank)
    assert codes == [code, code], printed
    assert printed.count(f"stopped by {signal} in fold ") == 1
    assert saved_in_the_middle_of_an_epoch(tmp_path)
    codes, printed = train_in(tmp_path, 2)
    assert codes == [0, 0], printed
    assert_same(outcome(tmp_path), pair[0])
