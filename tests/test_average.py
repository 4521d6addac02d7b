"""Averages: exact sums, types kept, nothing averaged that does not fit; statistics of the whole data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from batteries.errors import DataError, WeightsError
from batteries.experiment import Metric, Stage
from batteries.train.average import Averaged, average_checkpoints, recompute_batch_norm
from batteries.train.checkpoint import Checkpoints


def net(width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(3), nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 1)
    )


def moved(model: nn.Module) -> None:
    """One step of an imaginary training."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape).to(tensor.dtype) + 1)


def weights_of(number: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {
        "single": torch.randn(5, 4, generator=generator) * 1e3,
        "double": torch.randn(3, generator=generator, dtype=torch.float64),
        "brain": torch.randn(64, generator=generator).to(torch.bfloat16),
        "half": torch.randn(64, generator=generator).to(torch.float16),
        "count": torch.tensor(number),
        "flag": torch.tensor([number % 2 == 0]),
    }


def test_sums_run_in_float64_and_every_tensor_keeps_its_type() -> None:
    several = [weights_of(number) for number in range(1, 8)]
    mean = average_checkpoints(several)
    for name in ("single", "double", "brain", "half"):
        exact = torch.from_numpy(np.mean([weights[name].double().numpy() for weights in several], axis=0))
        assert mean[name].dtype == several[0][name].dtype
        if name == "double":  # no wider type to add in
            torch.testing.assert_close(mean[name], exact, rtol=0, atol=4 * torch.finfo(torch.float64).eps)
        else:
            assert torch.equal(mean[name], exact.to(mean[name].dtype)), name


def test_whole_numbers_and_flags_come_from_the_last_and_the_sources_stay_as_they_were() -> None:
    several = [weights_of(number) for number in range(1, 4)]
    mean = average_checkpoints(several)
    assert (int(mean["count"]), bool(mean["flag"]), mean["count"].dtype) == (3, False, torch.int64)
    mean["count"] += 1
    for number, weights in enumerate(several, 1):
        assert all(torch.equal(tensor, weights_of(number)[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("copies", [1, 2, 3, 7, 10])
def test_copies_of_one_checkpoint_give_the_same_bits(copies: int) -> None:
    one = weights_of(5)
    mean = average_checkpoints([one] * copies)
    assert all(torch.equal(mean[name], one[name]) for name in one)


@given(
    values=arrays(np.float32, (5, 16), elements=st.floats(-1000, 1000, width=32)),
    order=st.permutations(range(5)),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
def test_the_order_changes_one_unit_in_the_last_place_at_most(
    values: np.ndarray[Any, Any], order: list[int], dtype: torch.dtype
) -> None:
    several = [{"w": torch.from_numpy(row).to(dtype)} for row in values]
    a, b = (average_checkpoints([several[number] for number in numbers])["w"] for numbers in (range(5), order))
    unit = torch.finfo(dtype).eps * torch.stack([weights["w"].double().abs() for weights in several]).amax(dim=0)
    assert ((a.double() - b.double()).abs() <= unit).all()


def test_the_mean_of_five_models_is_that_of_pytorchs_averaged_model() -> None:
    model = net()
    theirs, saved = AveragedModel(model), []
    for _ in range(5):
        moved(model)
        theirs.update_parameters(model)
        saved.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    mean = average_checkpoints(saved)
    for name, parameter in theirs.module.named_parameters():
        torch.testing.assert_close(mean[name], parameter.detach(), rtol=1e-6, atol=1e-6)


def test_recomputed_statistics_on_equal_batches_are_those_of_update_bn_but_for_the_spread_of_their_means() -> None:
    """PyTorch averages the variances within batches; the variance of all samples has that between batches too."""
    batches = torch.randn(160, 3, generator=torch.Generator().manual_seed(2)).add(3).split(32)
    own, theirs = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    recompute_batch_norm(own, batches)
    update_bn(batches, theirs)
    torch.testing.assert_close(own.running_mean, theirs.running_mean, rtol=1e-6, atol=1e-6)
    between = torch.stack([batch.mean(dim=0) for batch in batches]).var(dim=0, unbiased=False)
    assert theirs.running_var is not None
    pooled = (theirs.running_var * (31 / 32) + between) * (160 / 159)
    torch.testing.assert_close(own.running_var, pooled, rtol=1e-6, atol=1e-6)
    same = [batches[0]] * 4  # nothing between the batches: only Bessel's correction, of 128 and of 32 samples, differs
    recompute_batch_norm(own, same)
    update_bn(same, theirs)
    torch.testing.assert_close(own.running_var * (127 / 128), theirs.running_var * (31 / 32), rtol=1e-6, atol=0)


PEAK = """
import re, sys
from pathlib import Path
import torch
from batteries.train.average import average_checkpoints
def peak():  # not getrusage, which begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
small, large = sys.argv[1:]
average_checkpoints([small] * 2)
before = peak()
for many in (2, 7):
    average_checkpoints([large] * many)
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux")
def test_memory_is_the_float64_sum_and_one_model_however_many_are_averaged(tmp_path: Path) -> None:
    size, files = 32 << 20, [str(tmp_path / "small.pt"), str(tmp_path / "large.pt")]
    for file, values in zip(files, (8, size // 4), strict=True):
        torch.save({f"w{n}": torch.ones(values // 8) for n in range(8)}, file)
    returned = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives what is freed back to the system
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *files], check=True, capture_output=True, text=True, env=returned
    )
    print(done.stdout)
    peaks = [int(line) * 1024 / size for line in done.stdout.split()]
    assert 2 < peaks[0] < 3.3  # the sum is twice the float32 model
    assert peaks[1] - peaks[0] < 0.5


def test_checkpoints_files_and_dicts_average_alike(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, metric=Metric("loss", higher_is_better=False))
    saved = [checkpoints.save({"model": weights_of(n), "average": weights_of(n + 10)}, score=n) for n in (1, 2)]
    for sources in (saved, [one.path for one in saved], [str(one.path) for one in saved]):
        mean = average_checkpoints(sources)
        assert all(torch.equal(a, mean[n]) for n, a in average_checkpoints([weights_of(1), weights_of(2)]).items())
    mean = average_checkpoints(saved, part="average")
    assert all(torch.equal(a, mean[n]) for n, a in average_checkpoints([weights_of(11), weights_of(12)]).items())


W = torch.ones(2)


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        ([], WeightsError, "nothing to average: give at least one"),
        ([{"w": W}, {"v": W}], WeightsError, "checkpoints 1 and 2 differ: 'v' is in one of them only"),
        ([{"w": W}, {"w": W}, {"w": W, "x": W}], WeightsError, "checkpoints 1 and 3 differ: 'x' is in one of them"),
        ([{}, {"w": W}], WeightsError, "checkpoints 1 and 2 differ: 'w' is in one of them only"),
        ([{"w": W.int()}, {"w": W.bool()}], WeightsError, r"'w' is \(2,\) torch.int32 and \(2,\) torch.bool"),
        ([{"w": W}, {"w": torch.ones(())}], WeightsError, r"'w' is \(2,\) torch.float32 and \(\) torch.float32"),
        ([{"w": W}, {"w": torch.ones(1)}], WeightsError, r"'w' is \(2,\) torch.float32 and \(1,\) torch.float32"),
        ([{"w": W}, {"w": W.int()}], WeightsError, r"'w' is \(2,\) torch.float32 and \(2,\) torch.int32"),
        ([{"w": W}, {"w": W.double()}], WeightsError, r"'w' is \(2,\) torch.float32 and \(2,\) torch.float64"),
        ([{"w": W}, {"w": W * float("nan")}], DataError, "checkpoint 2: 'w' is NaN or infinite; leave it out"),
        ([{"w": W * float("inf")}], DataError, "checkpoint 1: 'w' is NaN or infinite"),
        ([{"w": W.to(torch.complex64)}], WeightsError, "'w' is complex"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(sources: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        average_checkpoints(sources)


def test_ema_equals_one_written_by_hand_over_parameters_and_buffers() -> None:
    model = net()
    twin = Averaged(model, Stage("all", epochs=1, average="ema", decay=0.8))
    mean: dict[str, Tensor] = {}
    for n in range(60):
        moved(model)
        twin.update()
        decay = min(0.8, (1 + n) / (10 + n))
        for name, tensor in model.state_dict().items():
            whole = n == 0 or not tensor.is_floating_point()
            mean[name] = tensor.clone() if whole else torch.lerp(mean[name], tensor, 1 - decay)
    got = twin.module.state_dict()
    assert all(torch.equal(got[name], mean[name]) for name in mean)


class Follower(nn.Module):
    """Puts new tensors in the place of its buffers, one of them of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("center", torch.zeros(2))
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("cache", None)

    def forward(self, values: Tensor) -> Tensor:
        self.center = 0.5 * self.center + 0.5 * values.mean(dim=0)
        self.seen = torch.zeros(len(values))
        return values + self.center


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_buffers_that_a_module_replaces_are_followed(average: Any) -> None:
    model = Follower()
    twin = Averaged(model, Stage("all", epochs=1, average=average, decay=0.8))
    mean = torch.zeros(2)
    for n in range(4):
        model(torch.full((3 + n // 2, 2), float(n)))
        twin.update()
        decay = min(0.8, (1 + n) / (10 + n)) if average == "ema" and n else 0.0
        mean = torch.lerp(mean, model.center, 1 - decay)
    got = twin.module.state_dict()
    assert torch.equal(got["center"], mean)
    assert got["seen"].shape == (4,)


def test_complex_weights_are_averaged_too() -> None:
    model = nn.Linear(2, 1, dtype=torch.complex64)
    twin, theirs = Averaged(model, Stage("all", epochs=1, average="swa")), AveragedModel(model)
    for _ in range(3):
        moved(model)
        twin.update()
        theirs.update_parameters(model)
    torch.testing.assert_close(twin.module.weight, theirs.module.weight)
    assert not torch.equal(twin.module.weight, model.weight)


def test_swa_equals_pytorchs_averaged_model() -> None:
    model = net()
    twin, theirs = Averaged(model, Stage("all", epochs=1, average="swa")), AveragedModel(model)
    for _ in range(5):
        moved(model)
        twin.update()
        theirs.update_parameters(model)
    pairs = zip(twin.module.state_dict().values(), theirs.module.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_batch_norm_statistics_are_those_of_all_samples_whatever_the_batches() -> None:
    data = torch.randn(101, 3, generator=torch.Generator().manual_seed(1)) * 5 + 100
    for sizes in ([101], [50, 51], [7, 90, 4], [2] * 49 + [3]):
        model = net()
        assert recompute_batch_norm(model, data.split(sizes)) == 2
        np.testing.assert_allclose(model[0].running_mean, data.double().mean(dim=0), rtol=1e-6)
        np.testing.assert_allclose(model[0].running_var, data.double().var(dim=0), rtol=1e-6)


def test_batch_norm_statistics_of_images_count_every_pixel() -> None:
    images = torch.randn(9, 3, 4, 5) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] - 7
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None))
    recompute_batch_norm(model, images.split([1, 6, 2]))
    pixels = images.double().permute(1, 0, 2, 3).flatten(1).numpy()
    np.testing.assert_allclose(model[0].running_mean, pixels.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(model[0].running_var, pixels.var(axis=1, ddof=1), rtol=1e-6)


def test_recomputing_touches_nothing_but_means_and_variances() -> None:
    model = net()
    moved(model)
    model.train()
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    recompute_batch_norm(model, (torch.arange(60.0).reshape(20, 3) ** 2).split(8))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{i}.running_{what}" for i in (0, 2) for what in ("mean", "var")}
    assert [module.training for module in model.modules()] == modes
    assert all(module.track_running_stats for module in (model[0], model[2]))
    assert not model[0]._forward_pre_hooks
    assert torch.equal(generator, torch.get_rng_state())


def test_a_failing_batch_leaves_the_model_as_it_was() -> None:
    model = net()
    moved(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="must match the size"):
        recompute_batch_norm(model, [torch.randn(8, 3), torch.randn(8, 4)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert model[0].track_running_stats


def test_dropout_stays_off_while_statistics_are_recomputed() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3))
    data = torch.randn(30, 3)
    recompute_batch_norm(model, [data])
    np.testing.assert_allclose(model[1].running_mean, data.double().mean(dim=0), rtol=1e-5)


def test_a_model_without_batch_norms_reads_no_batch_and_no_batches_are_refused() -> None:
    assert recompute_batch_norm(nn.Linear(2, 1), iter([])) == 0
    with pytest.raises(DataError, match="at least one batch"):
        recompute_batch_norm(net(), [])


@pytest.mark.parametrize("only", [False, True])
def test_a_norm_that_predictions_do_not_use_keeps_its_statistics(only: bool) -> None:
    class Aided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Identity() if only else nn.BatchNorm1d(3)
            self.aid = nn.BatchNorm1d(3)

        def forward(self, values: Tensor) -> Tensor:
            values = self.main(values)
            return values + self.aid(values) if self.training else values

    model, data = Aided(), torch.randn(8, 3)
    model(data + 2)
    before = model.aid.running_mean.clone()
    recompute_batch_norm(model, [data])
    assert torch.equal(model.aid.running_mean, before)
    if not only:
        np.testing.assert_allclose(model.main.running_mean, data.double().mean(dim=0), rtol=1e-5)


def test_the_models_own_way_to_be_called_can_be_given() -> None:
    model = net()
    batches = [{"x": torch.randn(8, 3)}]
    recompute_batch_norm(model, batches, lambda model, batch: model(batch["x"]))
    np.testing.assert_allclose(model[0].running_mean, batches[0]["x"].double().mean(dim=0), rtol=1e-5)
