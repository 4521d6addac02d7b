"""Fitted weights against searching everything, plain loops of the papers, and SciPy; laws and degenerate cases."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize
from sklearn.metrics import roc_auc_score

import batteries as bt
from batteries.combine.climb import Climb
from batteries.combine.fitted import Fitted, Method, fit_weights
from batteries.combine.greedy import Greedy
from batteries.combine.search import Search, capped
from batteries.combine.simplex import Simplex
from batteries.errors import BlendError, ConfigError

AUC, RMSE, LOG_LOSS, ACCURACY = bt.Metric.auc(), bt.Metric.rmse(), bt.Metric.log_loss(), bt.Metric.accuracy()
HAND_LOSS = bt.Metric(  # twenty times as fast as scikit-learn's, which checks its input each time
    "log_loss", lambda y, p: -np.log(np.where(y == 1, p, 1 - p)).mean(), higher_is_better=False
)
SLOW_AUC = bt.Metric("auc", lambda y, p: roc_auc_score(y, p), higher_is_better=True)
EVERY_WAY: list[Method] = [Greedy(), Greedy(bags=3), Climb(), Climb(negative=True), Simplex(loss="log_loss"), Search()]
Arrays = list[np.ndarray]


def problem(members: int, rows: int, seed: int = 0) -> tuple[Arrays, np.ndarray]:
    """Probabilities of models of different noise, and the truth."""
    generator = np.random.default_rng(seed)
    targets = np.arange(rows) % 2
    truth = generator.normal(0, 1, rows) + 1.5 * targets - 0.75
    noise = generator.uniform(0.5, 3.0, members)
    return [1 / (1 + np.exp(-truth - generator.normal(0, spread, rows))) for spread in noise], targets


def on_the_grid(members: Arrays, targets: np.ndarray, metric: bt.Metric, parts: int) -> float:
    """The best score of all weights that are multiples of 1 / parts."""
    points = (p for p in itertools.product(range(parts + 1), repeat=len(members)) if sum(p) == parts)
    stacked = np.stack(members)
    return min((metric(targets, np.array(p) / parts @ stacked) for p in points), key=metric.order)


# --- greedy selection


def selected_by_hand(members: Arrays, targets: np.ndarray, metric: bt.Metric, rounds: int) -> dict[int, int]:
    """Caruana et al. 2004 in plain loops, every bag averaged anew."""

    def score(bag: list[int]) -> float:
        return metric(targets, np.mean([members[member] for member in bag], axis=0))

    order = sorted(range(len(members)), key=lambda member: metric.order(score([member])))
    bag = min((order[:n] for n in range(1, len(order) + 1)), key=lambda some: metric.order(score(some)))
    bags = [bag]
    for _ in range(rounds):
        bag = [*bag, min(range(len(members)), key=lambda member: metric.order(score([*bag, member])))]
        bags.append(bag)
    best = min(bags, key=lambda some: metric.order(score(some)))
    return {member: best.count(member) for member in set(best)}


@pytest.mark.parametrize("metric", [AUC, RMSE, HAND_LOSS], ids=lambda metric: metric.name)
def test_greedy_takes_what_the_paper_takes(metric: bt.Metric) -> None:
    members, targets = problem(6, 150)
    counts = selected_by_hand(members, targets, metric, rounds=25)
    fitted = fit_weights(members, targets, metric, how=Greedy(rounds=25, patience=25))
    expected = [counts.get(member, 0) / sum(counts.values()) for member in range(6)]
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-12)


def test_of_members_that_help_equally_greedy_takes_the_one_in_the_bag() -> None:
    targets = np.array([0, 1, 1, 1])
    weak, perfect = np.array([0.1, 0.9, 0.9, 0.45]), np.array([0.1, 0.9, 0.9, 0.9])
    assert ACCURACY(targets, (weak + perfect) / 2) == ACCURACY(targets, perfect) == 1
    fitted = fit_weights([weak, perfect], targets, ACCURACY, how="greedy")
    assert fitted.weights == (0.0, 1.0)
    assert {step.member for step in fitted.history} == {1}


def test_bags_draw_members_from_the_seed_and_average() -> None:
    members, targets = problem(10, 200)
    how = Greedy(bags=5, share=0.3)
    first, again, other = (fit_weights(members, targets, AUC, how=how, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.weights != other.weights
    one_bag = fit_weights(members, targets, AUC, how=Greedy(bags=2, share=1.0))
    np.testing.assert_allclose(one_bag.weights, fit_weights(members, targets, AUC).weights, atol=1e-12)


def test_the_best_bag_on_the_way_is_kept() -> None:
    members, targets = problem(5, 60, seed=3)
    fitted = fit_weights(members, targets, ACCURACY, how=Greedy(rounds=30, patience=30))
    assert len(fitted.history) == 30
    assert fitted.score >= max(step.score for step in fitted.history)


# --- climb on a grid


def climbed_by_hand(members: Arrays, targets: np.ndarray, shares: list[float]) -> tuple[np.ndarray, float]:
    """The steps of hillclimbers in plain loops."""
    left = sorted(range(len(members)), key=lambda member: -roc_auc_score(targets, members[member]))
    first = left.pop(0)
    blend, best, weights = members[first], roc_auc_score(targets, members[first]), np.eye(len(members))[first]
    while left:
        tried = {(m, w): roc_auc_score(targets, (1 - w) * blend + w * members[m]) for m in left for w in shares}
        (member, share), score = max(tried.items(), key=lambda item: item[1])
        if score <= best:
            break
        blend, best = (1 - share) * blend + share * members[member], score
        weights = (1 - share) * weights + share * np.eye(len(members))[member]
        left.remove(member)
    return weights, best


@pytest.mark.parametrize("negative", [False, True])
def test_climb_takes_the_steps_of_plain_loops(negative: bool) -> None:
    members, targets = problem(6, 200, seed=1)
    how = Climb(step=0.1, negative=negative)
    weights, score = climbed_by_hand(members, targets, how.grid().tolist())
    fitted = fit_weights(members, targets, AUC, how=how)
    np.testing.assert_allclose(fitted.weights, weights, atol=1e-12)
    assert fitted.score == pytest.approx(score, abs=1e-12)


def test_weights_below_zero_are_of_sum_one_and_may_leave_the_unit_interval() -> None:
    truth = np.array([0, 0, 1, 1, 0, 1, 1, 0])
    good = truth * 0.8 + 0.1
    bias = np.array([0.9, 0.0, 0.1, 0.0, 0.9, 0.1, 0.0, 0.0])
    fitted = fit_weights([good + 0.5 * (bias - bias.mean()), bias], truth, RMSE, how=Climb(negative=True, step=0.05))
    assert min(fitted.weights) < 0
    assert sum(fitted.weights) == pytest.approx(1, abs=1e-12)
    extreme = fitted([np.array([0.0, 1.0]), np.array([1.0, 0.0])])
    assert extreme.min() < 0
    assert extreme.max() > 1


# --- search without derivatives


def test_search_improves_the_auc_where_a_method_of_slopes_stays_at_its_start() -> None:
    members, targets = problem(3, 400, seed=2)
    start, stacked = np.full(3, 1 / 3), np.stack(members)
    slopes = minimize(
        lambda w: -roc_auc_score(targets, w @ stacked),
        start,
        bounds=[(0, 1)] * 3,
        constraints=LinearConstraint(np.ones((1, 3)), 1, 1),
        method="SLSQP",
    )
    np.testing.assert_array_equal(slopes.x, start)
    fitted = fit_weights(members, targets, AUC, how="search")
    assert fitted.score > AUC(targets, start @ stacked) + 0.005
    assert fitted.score >= on_the_grid(members, targets, AUC, 25) - 2e-4


@pytest.mark.parametrize("metric", [RMSE, HAND_LOSS], ids=lambda metric: metric.name)
def test_search_finds_the_lowest_point_of_a_smooth_loss(metric: bt.Metric) -> None:
    members, targets = problem(5, 200, seed=4)
    exact = fit_weights(members, targets, metric, how="simplex")
    assert fit_weights(members, targets, metric, how=Search(restarts=3)).score == pytest.approx(exact.score, abs=2e-5)


def test_search_among_many_members_still_improves() -> None:
    members, targets = problem(25, 150)
    equal = AUC(targets, np.mean(members, axis=0))
    fitted = fit_weights(members, targets, AUC, how=Search(restarts=1))
    assert fitted.score > equal
    assert fit_weights(members, targets, AUC, how=Search(restarts=3)).score >= fitted.score


def test_search_draws_its_starts_from_the_seed() -> None:
    members, targets = problem(4, 100)
    first, again = (fit_weights(members, targets, ACCURACY, how="search", seed=7) for _ in range(2))
    assert first == again


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda w: sum(w) > 0.01), st.floats(0.5, 1))
@example([1.0, 5e-324], 0.5)
def test_a_cap_keeps_the_sum_and_the_order(weights: list[float], most: float) -> None:
    before = np.array(weights) / sum(weights)
    after = capped(before, most)
    assert after.sum() == pytest.approx(1, abs=1e-9)
    assert after.max() <= most + 1e-9
    assert (np.diff(after[np.argsort(before)]) >= -1e-9).all()


# --- every way


@pytest.mark.parametrize("how", EVERY_WAY, ids=str)
def test_no_way_is_worse_than_the_best_of_a_grid_by_much(how: Method) -> None:
    members, targets = problem(3, 300, seed=5)
    score = fit_weights(members, targets, HAND_LOSS, how=how).score
    slack = 0.02 if how == Greedy(bags=3) else 1e-3  # bags leave members out on purpose
    assert score <= on_the_grid(members, targets, HAND_LOSS, 20) + slack


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 6), st.sampled_from([1.0, 0.75, 0.5]), st.sampled_from([0.0, 0.1]))
def test_weights_are_on_the_simplex_and_within_the_limit(seed: int, size: int, most: float, l2: float) -> None:
    members, targets = problem(size, 40, seed)
    for how in (
        Greedy(rounds=10),
        Greedy(rounds=5, bags=2),
        Simplex(loss="log_loss"),
        Search(restarts=3, evaluations=9),
    ):
        fitted = fit_weights(members, targets, AUC, how=how, max_weight=most, l2=l2, prune=seed % 2 == 0)
        assert sum(fitted.weights) == pytest.approx(1, abs=1e-9)
        assert min(fitted.weights) >= 0
        assert max(fitted.weights) <= most + 1e-8
        assert fitted.score == pytest.approx(AUC(targets, np.array(fitted.weights) @ np.stack(members)), abs=1e-9)


@settings(max_examples=10)
@given(st.permutations(range(5)), st.sampled_from(["greedy", "climb", "simplex"]))
def test_the_order_of_members_does_not_matter(order: list[int], how: str) -> None:
    members, targets = problem(5, 120, seed=6)
    one = fit_weights(members, targets, HAND_LOSS, how=how).weights  # type: ignore[arg-type]
    other = fit_weights([members[k] for k in order], targets, HAND_LOSS, how=how).weights  # type: ignore[arg-type]
    np.testing.assert_allclose([one[k] for k in order], other, atol=1e-7)


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(random: object) -> None:
    members, targets = problem(4, 50, seed=7)
    rows = list(range(50))
    random.shuffle(rows)  # type: ignore[attr-defined]
    for how in ("greedy", "climb"):
        one = fit_weights(members, targets, AUC, how=how)  # type: ignore[arg-type]
        other = fit_weights([member[rows] for member in members], targets[rows], AUC, how=how)  # type: ignore[arg-type]
        assert one.weights == other.weights


@pytest.mark.parametrize("how", [Greedy(), Simplex(), Search()], ids=str)
def test_a_strong_pull_keeps_weights_together(how: Method) -> None:
    members, targets = problem(4, 100, seed=8)
    np.testing.assert_allclose(fit_weights(members, targets, HAND_LOSS, how=how, l2=1e3).weights, 0.25, atol=0.01)


@pytest.mark.parametrize("how", ["greedy", "climb", "search"])
def test_what_is_not_a_number_is_never_better(how: str) -> None:
    members, targets = problem(4, 80, seed=9)

    def picky(y: np.ndarray, p: np.ndarray) -> float:
        return float("nan") if p.mean() > 0.5 else float(-abs(y - p).mean())

    members[0] = members[0] * 0.4
    fitted = fit_weights(members, targets, bt.Metric("picky", picky, higher_is_better=True), how=how)  # type: ignore[arg-type]
    assert np.isfinite(fitted.score)


def test_a_member_that_is_not_needed_is_left_out() -> None:
    members, targets = problem(3, 300, seed=10)
    doubled = [*members, members[0]]
    for metric in (AUC, RMSE):
        full = fit_weights(doubled, targets, metric, how=Search(restarts=1))
        pruned = fit_weights(doubled, targets, metric, how=Search(restarts=1), prune=True)
        assert metric.order(pruned.score) <= metric.order(full.score)
        assert np.count_nonzero(pruned.weights) <= np.count_nonzero(full.weights)
    flat = [members[0], np.full(300, 0.5)]  # a constant changes no order
    assert fit_weights(flat, targets, AUC, how=Simplex(loss="log_loss"), prune=True).weights == (1.0, 0.0)


def test_the_quick_auc_in_threads_climbs_as_scikit_learns() -> None:
    members, targets = problem(30, 20_000, seed=11)
    for how in (Greedy(rounds=2), Climb(step=0.5)):
        quick, slow = (fit_weights(members[:12], targets, metric, how=how) for metric in (AUC, SLOW_AUC))
        assert quick.weights == slow.weights
        assert quick.score == pytest.approx(slow.score, abs=1e-12)
        many = fit_weights(members, targets, AUC, how=how)
        assert many.score >= quick.score - 1e-3


def test_a_climb_needs_a_fifth_of_the_members_memory_at_the_most() -> None:
    members, targets = problem(30, 100_000, seed=12)
    fit_weights([member[:100] for member in members], targets[:100], AUC, how=Climb(step=0.5))  # imports
    tracemalloc.start()
    try:
        fit_weights(members, targets, AUC, how=Climb(step=0.5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 0.2 * sum(member.nbytes for member in members)


# --- degenerate members


@pytest.mark.parametrize("how", EVERY_WAY, ids=str)
def test_one_member_gets_all_and_twins_give_what_one_gives(how: Method) -> None:
    members, targets = problem(1, 50)
    alone = fit_weights(members, targets, HAND_LOSS, how=how)
    assert alone.weights == (1.0,)
    assert alone.score == HAND_LOSS(targets, members[0])
    twins = fit_weights(members * 3, targets, HAND_LOSS, how=how)
    assert sum(twins.weights) == pytest.approx(1, abs=1e-9)
    assert twins.score == pytest.approx(alone.score, rel=1e-12)


@pytest.mark.parametrize("how", EVERY_WAY, ids=str)
def test_a_constant_member_does_no_harm(how: Method) -> None:
    members, targets = problem(2, 200, seed=13)
    fitted = fit_weights([*members, np.full(200, 0.5)], targets, HAND_LOSS, how=how)
    assert np.isfinite(fitted.weights).all()
    assert fitted.score <= HAND_LOSS(targets, np.full(200, 0.5))
    constants = fit_weights([np.full(200, 0.5), np.full(200, 0.25)], targets, AUC, how=how)
    assert constants.score == 0.5


@pytest.mark.parametrize("how", [Greedy(rounds=3), Greedy(bags=3, rounds=3), Climb(step=0.5), Simplex()], ids=str)
def test_a_thousand_members_of_twenty_rows_are_fitted(how: Method) -> None:
    members, targets = problem(1000, 20, seed=14)
    fitted = fit_weights(members, targets, RMSE, how=how)
    assert len(fitted.weights) == 1000
    assert sum(fitted.weights) == pytest.approx(1, abs=1e-9)
    assert fitted.score < RMSE(targets, np.mean(members, axis=0))


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "bool"])
def test_members_keep_their_type_and_sums_run_in_float64(dtype: str) -> None:
    members, targets = problem(3, 100, seed=15)
    scale = 1 if dtype.startswith("float") else 200
    narrow = [(member * scale).astype(dtype) for member in members]
    copies = [member.copy() for member in narrow]
    fitted = fit_weights(narrow, targets, AUC)
    wide = fit_weights([member.astype("float64") for member in narrow], targets, AUC)
    assert fitted.weights == wide.weights
    for member, copy in zip(narrow, copies, strict=True):
        np.testing.assert_array_equal(member, copy)
    half = np.full(100, 60_000, dtype="float16")
    assert fit_weights([half, half], np.full(100, 60_000.0), RMSE).score == pytest.approx(0, abs=33)


def test_columns_of_classes_and_single_columns_are_blended_whole() -> None:
    members, targets = problem(3, 200, seed=16)
    pairs = [np.stack([1 - member, member], axis=1) for member in members]
    for metric in (AUC, LOG_LOSS, ACCURACY):
        flat, column, pair = (
            fit_weights(arrays, targets, metric) for arrays in (members, [m[:, None] for m in members], pairs)
        )
        assert flat.weights == column.weights
        np.testing.assert_allclose(pair.weights, flat.weights, atol=1e-12)
        assert pair(pairs).shape == (200, 2)


def test_the_result_is_plain_data() -> None:
    members, targets = problem(2, 60)
    fitted = fit_weights(members, targets, AUC, how="greedy")
    plain = json.loads(json.dumps(fitted.plain()))
    assert plain["weights"] == list(fitted.weights)
    assert (plain["metric"], plain["how"]) == ("auc", "greedy")
    assert fitted.evaluations > 4
    np.testing.assert_allclose(fitted(members), np.average(members, axis=0, weights=fitted.weights), rtol=1e-12)
    np.testing.assert_allclose(fitted(members), bt.blend(members, weights=fitted.weights), rtol=1e-12)


# --- refusals

ONES = np.array([0.1, 0.9, 0.4])
TRUTH = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": []}, "give at least one member"),
        ({"members": [ONES, ONES[:2]]}, r"member 2 has shape \(2,\), member 1 has \(3,\)"),
        ({"members": [ONES, np.array([1, np.nan, np.inf])]}, "member 2 has 2 values that are NaN or infinite"),
        ({"members": [np.array(["a", "b", "c"])]}, "member 1 holds <U1, not numbers"),
        ({"members": [np.ones((3, 2, 2))]}, r"must have the shape \(n,\) or \(n, columns\)"),
        ({"members": [np.ones(0)]}, "and rows, got"),
        ({"targets": TRUTH[:2]}, r"members have 3 rows, targets have the shape \(2,\)"),
        ({"targets": np.array([0, 1, np.nan])}, "1 targets are NaN or infinite"),
        ({"how": "median"}, "no way 'median' to fit weights; choose one of greedy, climb, simplex, search"),
        ({"max_weight": 0.4}, "2 members of at most 0.4 each do not add up to 1; max_weight must be at least 0.5"),
        ({"max_weight": 0.0}, r"max_weight must be in \(0, 1\], got 0.0"),
        ({"max_weight": float("nan")}, "max_weight must be in"),
        ({"l2": -1.0}, "l2 must be a finite number, 0 or above, got -1.0"),
        ({"how": "climb", "max_weight": 0.5}, "knows no max_weight; use how='greedy'"),
        ({"members": [ONES, -ONES], "metric": LOG_LOSS}, None),
        ({"members": [-ONES, ONES], "metric": LOG_LOSS}, "log_loss cannot score the first member"),
    ],
)
def test_what_has_no_weights_is_refused(arguments: dict[str, object], message: str | None) -> None:
    given = {"members": [ONES, ONES], "targets": TRUTH, "metric": AUC, **arguments}
    if message is None:  # only one of two members is no probability: the other gets all
        assert fit_weights(**given).weights[0] == pytest.approx(1)  # type: ignore[arg-type]
        return
    with pytest.raises(BlendError, match=message):
        fit_weights(**given)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Only one class")
def test_targets_of_one_class_have_no_auc_to_fit() -> None:
    for how in ("greedy", "climb", "search"):
        with pytest.raises(BlendError, match="auc of every member is NaN or infinite"):
            fit_weights([ONES, ONES], np.ones(3), AUC, how=how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Greedy(rounds=0), "greedy: rounds must be >= 1, got 0"),
        (lambda: Greedy(share=1.5), r"greedy: share must be in \(0, 1\], got 1.5"),
        (lambda: Climb(step=0.6), "0 < step <= most < 1 must hold, got step 0.6 and most 0.5"),
        (lambda: Climb(step=float("nan")), "got step nan"),
        (lambda: Search(restarts=0), "search: restarts must be >= 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_made(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_weights_are_applied_to_as_many_members_of_one_shape() -> None:
    fitted = Fitted((0.5, 0.5), 0.9, "auc", "greedy", (), 3)
    with pytest.raises(BlendError, match="2 members of one shape are needed, got 3"):
        fitted([ONES] * 3)
    with pytest.raises(BlendError, match=r"got 2 of \(2,\), \(3,\)"):
        fitted([ONES, ONES[:2]])
