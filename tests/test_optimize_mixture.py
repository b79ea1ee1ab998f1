"""The search for mixtures, against SciPy, against itself on neighbouring problems, and against what it promises."""

import jax
import numpy as np
import pytest
from conftest import QUICK
from scipy.optimize import linprog, minimize

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

LAW = jl.laws["domain_mixture"]
K = 5

# There is a program for each kind of options and each size of a batch, and to compile one takes far longer than to
# search: tests share few kinds, with a prior of no strength where there is none, and solve many problems by eights.
NO_PRIOR = {"prior": np.full(K, 0.2), "strength": 0.0}


def search(group, **options):
    """The best mixtures, in NumPy."""
    return jax.tree.map(np.asarray, jl.optimize_mixture(LAW, group, **options))


def by_eights(groups, *, sums=None, **options):
    """The same for many problems, whose options have a row for each, in batches of 8."""
    common = {} if sums is None else {"sums": sums}
    count = len(next(iter(options.values())))
    groups = [groups] * count if isinstance(groups, str) else groups
    parts = []
    for i in range(0, count, 8):
        own = {name: value[i : i + 8] for name, value in options.items()}
        parts.append(search(groups[i : i + 8], **common, **own))
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def problems(count, seed=0):
    """Random problems with every kind of constraint, none of which excludes all mixtures."""
    rng = np.random.default_rng(seed)
    inside = rng.dirichlet(np.full(K, 3), count)
    sums = np.array([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 2, 0, -1, 1], [1, 0, 1, 0, 1]])
    totals = inside @ sums.T
    return {
        "weights": rng.dirichlet(np.ones(K), count),
        "lower": inside * rng.uniform(0, 1, (count, 1)),
        "upper": np.minimum(1, inside * rng.uniform(1.2, 4, (count, 1))),
        "sums": sums,
        "sum_lower": totals - rng.uniform(0.01, 0.2, totals.shape),
        "sum_upper": totals + rng.uniform(0.01, 0.2, totals.shape),
        "prior": rng.dirichlet(np.ones(K) * 5, count),
        "strength": rng.choice([0, 0.01, 0.3], count),
    }, inside


def one(options, i):
    return {name: value if name == "sums" else value[i] for name, value in options.items()}


def loss_by_hand(coefs, p):
    """The law, written again."""
    return coefs.intercept + coefs.coef_linear @ p + coefs.coef_log @ np.log(p + 1e-6)


def by_scipy(coefs, start, weights, lower, upper, sums, sum_lower, sum_upper, prior, strength):
    """The best that SLSQP finds from several starts."""

    def value(p):
        p = np.maximum(p, 1e-12)
        return weights @ loss_by_hand(coefs, p) + strength * np.sum(p * np.log(p / prior))

    constraints = [
        {"type": "eq", "fun": lambda p: p.sum() - 1},
        {"type": "ineq", "fun": lambda p: sums @ p - sum_lower},
        {"type": "ineq", "fun": lambda p: sum_upper - sums @ p},
    ]
    found = []
    for first in (start, 0.5 * start + 0.5 * np.clip(prior, lower, upper)):
        run = minimize(
            value,
            first,
            method="SLSQP",
            bounds=list(zip(lower, upper, strict=True)),
            constraints=constraints,
            options={"ftol": 1e-15, "maxiter": 500},
        )
        p = run.x
        over = [lower - p, p - upper, sum_lower - sums @ p, sums @ p - sum_upper, [abs(p.sum() - 1)]]
        if max(map(max, over)) < 1e-12:
            found.append(value(p))
    return min(found, default=np.inf)


def test_never_worse_than_scipy_and_never_too_sure():
    count = 60
    options, inside = problems(count)
    names = list(LAW.groups)
    groups = [names[i % len(names)] for i in range(count)]
    best = by_eights(groups, **options)
    assert best.converged.all()
    value = best.loss + best.penalty
    compared = 0
    for i in range(count):
        expected = by_scipy(LAW.groups[groups[i]], inside[i], **one(options, i))
        assert value[i] <= expected + 1e-9
        assert value[i] - best.gap[i] <= expected + 1e-12
        compared += np.isfinite(expected)
    assert compared > count / 2
    assert (best.gap < 1e-8).all()


def test_the_best_of_many_optima_is_found():
    rng = np.random.default_rng(0)
    count = 300
    options, inside = problems(count, seed=8)
    options["strength"] = rng.choice([0, 0.01], count)
    options["weights"] = rng.dirichlet(np.full(K, 0.5), count)
    options["weights"][:100] = rng.normal(size=(100, K))  # most of these have several optima
    names = [list(LAW.groups)[i % 4] for i in range(count)]
    best = by_eights(names, **options)
    value = best.loss + best.penalty
    bends = np.einsum("bi,bij->bj", options["weights"], np.stack([LAW.groups[g].coef_log for g in names]))
    assert (bends > 0).any(-1).sum() > 100
    assert best.converged.all()
    assert (best.gap < 1e-8).all()
    for i in range(count):
        # Where a vertex is best, or near one: mixtures on the edges between random points and the vertices.
        tried = rng.dirichlet(np.full(K, 0.2), 4000)
        tried = tried + rng.choice([0, 1], 4000)[:, None] * (inside[i] - tried) * rng.uniform(0, 1, (4000, 1))
        low, high = options["lower"][i], options["upper"][i]
        tried = np.clip(tried, low, high)
        move = np.argmax(np.minimum(tried - low, high - tried), 1)
        tried[np.arange(4000), move] += 1 - tried.sum(1)
        total = tried @ options["sums"].T
        good = ((tried >= low) & (tried <= high)).all(1)
        good &= ((total >= options["sum_lower"][i]) & (total <= options["sum_upper"][i])).all(1)
        coefs = LAW.groups[names[i]]
        losses = coefs.intercept + tried @ coefs.coef_linear.T + np.log(np.maximum(tried, 0) + 1e-6) @ coefs.coef_log.T
        safe = np.maximum(tried, 1e-300)
        costs = losses @ options["weights"][i] + options["strength"][i] * np.sum(
            safe * np.log(safe / options["prior"][i]), 1
        )
        assert costs[good].min(initial=np.inf) >= value[i] - best.gap[i]
    for i in range(0, 100, 5):
        expected = by_scipy(LAW.groups[names[i]], inside[i], **one(options, i))
        assert value[i] <= expected + 1e-8
        assert value[i] - best.gap[i] <= expected + 1e-12


def test_constraints_hold_and_the_parts_are_what_they_say():
    options, _ = problems(300, seed=1)
    best = by_eights("305M", **options)
    p = best.proportions
    assert best.converged.all()
    assert best.feasible.all()
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-14)
    assert (p >= options["lower"] - 1e-15).all()
    assert (p <= options["upper"] + 1e-15).all()
    assert (p @ options["sums"].T <= options["sum_upper"] + 1e-12).all()
    assert (p @ options["sums"].T >= options["sum_lower"] - 1e-12).all()
    losses = np.array([loss_by_hand(LAW.groups["305M"], row) for row in p])
    np.testing.assert_allclose(best.losses, losses, rtol=1e-14)
    np.testing.assert_allclose(best.loss, (options["weights"] * losses).sum(-1), rtol=1e-14)
    divergence = options["strength"] * np.sum(p * np.log(p / options["prior"]), -1)
    np.testing.assert_allclose(best.penalty, divergence, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(p[best.at_lower], options["lower"][best.at_lower], atol=1e-9)
    np.testing.assert_allclose(p[best.at_upper], options["upper"][best.at_upper], atol=1e-9)
    assert best.at_lower.any()
    assert best.at_upper.any()
    without = by_eights("305M", lower=options["lower"], upper=options["upper"])
    np.testing.assert_array_equal(without.at_lower, without.proportions == options["lower"])
    np.testing.assert_array_equal(without.at_upper, without.proportions == options["upper"])


def test_a_batch_is_a_loop():
    options, _ = problems(4, seed=2)
    best = search(["70M", "160M", "305M", "410M"], **options)
    for i, group in enumerate(["70M", "160M", "305M", "410M"]):
        alone = search(group, **one(options, i))
        np.testing.assert_allclose(alone.proportions, best.proportions[i], atol=1e-9)
        np.testing.assert_allclose(alone.loss, best.loss[i], rtol=1e-12)


def test_leading_axes_broadcast():
    upper = np.broadcast_to(np.linspace(0.5, 1, 2)[:, None], (2, K))
    for weights in (np.eye(K)[:4, None], np.eye(K)[1:, None]):
        best = search("410M", weights=weights, upper=upper)
        assert best.proportions.shape == (4, 2, K)
        assert best.gap.shape == best.loss.shape == best.converged.shape == (4, 2)
        assert (np.diff(best.loss, axis=1) <= 1e-12).all()
    draws = jax.tree.map(lambda leaf: np.stack([leaf, 1.01 * leaf]), LAW.groups["410M"])
    assert search(draws).proportions.shape == (2, K)


@pytest.mark.parametrize("which", ["lower", "upper", "sum_lower", "sum_upper"])
def test_multipliers_are_derivatives(which):
    options, _ = problems(96, seed=3)
    value = lambda best: best.loss + best.penalty  # noqa: E731
    best = by_eights("160M", **options)
    step = 1e-7
    for j in range(options[which].shape[-1]):
        direction = np.eye(K)[j, : options[which].shape[-1]]
        change = [value(by_eights("160M", **{**options, which: options[which] + s * direction})) for s in (-step, step)]
        slope = (change[1] - change[0]) / (2 * step)
        multipliers = {
            "lower": best.lower_multipliers,
            "upper": best.upper_multipliers,
            "sum_lower": np.maximum(best.sum_multipliers, 0),
            "sum_upper": np.minimum(best.sum_multipliers, 0),
        }[which][:, j]
        np.testing.assert_allclose(multipliers, slope, atol=1e-6)


def test_tokens_available_are_not_used_too_often():
    available = np.array([1e9, 1e9, 2e9, 2e10, 1e11])
    best = search("410M", available=available, budget=[1e9, 2e10], max_epochs=4)
    np.testing.assert_allclose(best.epochs, best.proportions * np.array([[1e9], [2e10]]) / available, rtol=1e-12)
    assert (best.epochs <= 4 + 1e-12).all()
    assert not best.at_upper[0].any()
    assert best.at_upper[1, 2]
    assert best.upper_multipliers[1, 2] < -1e-3
    free = search("410M")
    np.testing.assert_allclose(best.loss[0], free.loss, rtol=1e-14)
    assert np.isnan(free.epochs).all()


def test_the_worst_output_is_as_good_as_can_be():
    rng, count = np.random.default_rng(0), 20
    reference = rng.dirichlet(np.full(K, 3), count)
    coefs = LAW.groups["410M"]
    targets = np.asarray(LAW("410M", proportions=reference)) + rng.normal(size=(count, K)) * 0.02
    best = by_eights("410M", targets=targets, lower=np.full((count, K), 0.02))
    assert best.converged.all()
    np.testing.assert_allclose(best.loss, (best.losses - targets).max(-1), rtol=1e-12)
    np.testing.assert_allclose(best.output_weights.sum(-1), 1, rtol=1e-12)
    for i in range(count):
        run = minimize(
            lambda x: x[-1],
            [*reference[i], 1.0],
            method="SLSQP",
            bounds=[(0.02, 1)] * K + [(None, None)],
            constraints=[
                {"type": "eq", "fun": lambda x: x[:-1].sum() - 1},
                {"type": "ineq", "fun": lambda x, i=i: x[-1] - (loss_by_hand(coefs, x[:-1]) - targets[i])},
            ],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert best.loss[i] <= run.x[-1] + 1e-9 or not run.success
        # No mixture is better than the bound, whatever mixture it is.
        tried = np.maximum(rng.dirichlet(np.ones(K), 500), 0.02)
        tried /= tried.sum(-1, keepdims=True)
        worst = (np.asarray(LAW("410M", proportions=tried)) - targets[i]).max(-1)
        assert best.loss[i] - best.gap[i] <= worst.min()


def test_what_cannot_move_stays():
    best = search("70M", lower=[0.3, 0, 0, 0, 0], upper=[0.3, 1, 1, 1, 1])
    assert best.proportions[0] == 0.3
    assert best.converged
    assert best.gap < 1e-12
    only = search("70M", lower=0.2)
    np.testing.assert_allclose(only.proportions, 0.2, rtol=1e-15)
    assert only.converged
    assert only.gap < 1e-12
    assert only.at_lower.all()
    assert not only.at_upper.any()
    none = search("70M", prior=[0.5, 0.5, 0, 0, 0], strength=0.1)
    np.testing.assert_array_equal(none.proportions[2:], 0)


def test_the_gap_is_valid_where_a_prior_all_but_excludes_a_domain():
    prior = np.array([0.5, 0.3, 0.2, 1e-20, 0])
    weights = [1, 0, 0, 0, 0]
    best = search("160M", weights=weights, prior=prior, strength=0.3)
    value = best.loss + best.penalty
    assert best.converged
    assert 0 < best.proportions[3] < 1e-9
    share = np.logspace(-14, -4, 200)[:, None]
    tried = best.proportions * (1 - share) + share * np.eye(K)[3]
    losses = np.array([loss_by_hand(LAW.groups["160M"], p)[0] for p in tried])
    penalty = 0.3 * np.sum(tried[:, :4] * np.log(tried[:, :4] / prior[:4]), -1)
    assert (value - best.gap <= losses + penalty).all()


def test_one_domain_pinned_changes_the_loss_as_its_multiplier_says():
    at = lambda x: search("70M", lower=[x, 0, 0, 0, 0], upper=[x, 1, 1, 1, 1])  # noqa: E731
    best = at(0.3)
    slope = (at(0.3 + 1e-6).loss - at(0.3 - 1e-6).loss) / 2e-6
    np.testing.assert_allclose(best.lower_multipliers[0] + best.upper_multipliers[0], slope, atol=1e-7)


def test_constraints_that_exclude_each_other_are_named():
    best = search("70M", sums=[[1, 1, 0, 0, 0]], sum_lower=[[0.3], [0.1]], sum_upper=0.2)
    assert best.feasible.tolist() == [False, True]
    assert best.converged.tolist() == [False, True]
    assert best.conflicting.tolist() == [[True], [False]]
    assert np.isinf(best.gap[0])
    assert search("70M", sums=[[1, 1, 0, 0, 0]], sum_upper=0.2).gap < 1e-10
    rows = [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [10, 10, 0, 0, 0]]
    lower = [[0.6, 0.5, 0.1, 0], [0.6, 0.3, 0.1, 0], [0.6, -np.inf, 0.1, 0], [0.2, 0, 0.4, -np.inf], [0.5] * 3 + [5]]
    upper = [[1, 1, 1, 9], [1, 1, 1, 5], [1, 1, 1, np.inf], [0.5, 1, 1, np.inf], [0.5] * 3 + [5]]
    best = search("70M", sums=rows, sum_lower=lower, sum_upper=upper, **NO_PRIOR, upper=[0.3, 1, 1, 1, 1])
    assert best.feasible.tolist() == [False, False, True, False, False]
    assert best.conflicting.astype(int).tolist() == [
        [1, 1, 0, 0],  # more than there is
        [1, 0, 0, 1],  # each other
        [0, 0, 0, 0],
        [0, 0, 1, 0],  # the bound of the domain
        [0, 0, 1, 0],
    ]


def test_what_is_named_is_a_contradiction_and_none_without_it():
    rng = np.random.default_rng(0)
    count, m = 100, 4
    rows = rng.choice([0.0, 0, 1, 1, -1], (count, m, K))
    total = np.einsum("bij,bj->bi", rows, rng.dirichlet(np.ones(K), count))
    lower = total + rng.uniform(-0.5, 0.3, total.shape)
    upper = lower + rng.uniform(0, 0.4, total.shape)
    eights = [slice(i, i + 8) for i in range(0, count, 8)]
    parts = [search("70M", sums=rows[i], sum_lower=lower[i], sum_upper=upper[i], **NO_PRIOR) for i in eights]
    best = jax.tree.map(lambda *each: np.concatenate(each), *parts)

    def possible(i, which):
        sides = np.concatenate([rows[i, which], -rows[i, which]])
        bounds = np.concatenate([upper[i, which], -lower[i, which]])
        return linprog(np.zeros(K), sides, bounds, np.ones((1, K)), [1.0], bounds=(0, 1)).status == 0

    assert 0.2 < best.feasible.mean() < 0.8
    for i in range(count):
        assert possible(i, np.ones(m, bool)) == best.feasible[i]
        if not best.feasible[i]:
            assert not possible(i, best.conflicting[i])


def test_the_unconstrained_answer_is_that_of_a_call_without_constraints():
    options, _ = problems(8, seed=6)
    asked = {**options, "available": 1e10, "budget": 2e10, "max_epochs": 1.0}
    best = search("70M", **asked, unconstrained=True)
    free = {name: options[name] for name in ("weights", "prior", "strength")}
    alone = search("70M", **free)
    np.testing.assert_allclose(best.unconstrained, alone.proportions, atol=1e-9)
    np.testing.assert_allclose(best.unconstrained_loss, alone.loss, rtol=1e-9)
    assert (best.proportions <= 0.5 + 1e-12).all()
    assert (best.loss + best.penalty > alone.loss + alone.penalty + 1e-6).all()
    np.testing.assert_allclose(best.proportions, search("70M", **asked).proportions, atol=1e-12)
    assert np.isnan(alone.unconstrained_loss).all()


def test_sums_that_are_given():
    count = 600
    options, inside = problems(count, seed=7)
    options["weights"] = 0.5 * options["weights"] + 0.1
    names = [list(LAW.groups)[i % 4] for i in range(count)]
    # The third follows from the others, and the last is in other units.
    rows = np.array([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [2000, 0, 1000, 0, -1000]])
    total = inside @ rows.T
    options |= {"sums": rows, "sum_lower": total, "sum_upper": total}
    best = by_eights(names, **options)
    assert best.converged.all()
    np.testing.assert_allclose(best.proportions @ rows[:3].T, total[:, :3], atol=1e-13)
    np.testing.assert_allclose(best.proportions @ rows[3], total[:, 3], atol=1e-10)
    assert (best.gap < 1e-8).mean() > 0.95
    for i in range(20):
        expected = by_scipy(
            LAW.groups[names[i]],
            inside[i],
            **one({**options, "sums": rows[[0, 1, 3]]}, i)
            | {
                "sum_lower": total[i, [0, 1, 3]],
                "sum_upper": total[i, [0, 1, 3]],
            },
        )
        assert best.loss[i] + best.penalty[i] <= expected + 1e-9
    prior, nothing = np.full((count, K), 0.2), np.full((count, 2), np.inf)
    free = {"weights": options["weights"], "sums": rows[[0, 3, 1, 1]], "prior": prior, "strength": np.zeros(count)}

    def at(t):
        """With the first and the last of the sums."""
        ends = {"sum_lower": np.hstack([t, -nothing]), "sum_upper": np.hstack([t, nothing])}
        return by_eights(names, **free, **ends)

    step = np.array([0, 1e-3])
    slope = (at(total[:, [0, 3]] + step).loss - at(total[:, [0, 3]] - step).loss) / 2e-3
    multipliers = at(total[:, [0, 3]]).sum_multipliers[:, 1]
    assert (multipliers > 0).any()
    assert (multipliers < 0).any()
    near = np.isclose(multipliers, slope, atol=1e-8)
    assert near.mean() > 0.98  # two sides of a bend differ


@pytest.mark.parametrize("worst", [False, True])
def test_ranges_hold_all_mixtures_that_are_nearly_as_good_and_no_more(worst):
    count = 8
    options, inside = problems(count, seed=5)
    names = [list(LAW.groups)[i % 4] for i in range(count)]
    if worst:
        del options["weights"], options["sums"], options["sum_lower"], options["sum_upper"]
        options["targets"] = np.stack([np.asarray(LAW(n, proportions=p)) for n, p in zip(names, inside, strict=True)])
        options["targets"] *= 0.9
    else:
        options["weights"] = 0.5 * options["weights"] + 0.1  # convex
    within = np.geomspace(0.001, 0.02, count)
    best = search(names, **options, within=within)
    assert (best.lowest <= best.proportions).all()
    assert (best.highest >= best.proportions).all()
    assert (best.lowest >= options["lower"] - 1e-12).all()
    assert (best.highest <= options["upper"] + 1e-12).all()
    rng = np.random.default_rng(0)
    found = 0
    for i in range(count):
        coefs = LAW.groups[names[i]]
        lower, upper = options["lower"][i], options["upper"][i]

        def values(p, i=i, coefs=coefs):
            """What may not be too large: one number, or one for each output."""
            losses = coefs.intercept + p @ coefs.coef_linear.T + np.log(np.maximum(p, 0) + 1e-6) @ coefs.coef_log.T
            losses = losses - options["targets"][i] if worst else (losses @ options["weights"][i])[..., None]
            safe = np.maximum(p, 1e-300)
            return losses + options["strength"][i] * (safe * np.log(safe / options["prior"][i])).sum(-1)[..., None]

        limit = values(best.proportions[i]).max() + within[i] * abs(best.loss[i])

        def allowed(p, i=i, values=values, limit=limit):
            """What is left of each constraint."""
            if worst:
                return limit - values(p)
            total = p @ options["sums"].T
            sides = [options["sum_upper"][i] - total, total - options["sum_lower"][i]]
            return np.concatenate([limit - values(p), *sides], -1)

        tried = best.proportions[i] + rng.normal(size=(20000, K)) * rng.choice([0.01, 0.1], (20000, 1))
        tried = tried - (tried.sum(-1, keepdims=True) - 1) / K
        good = ((tried >= lower) & (tried <= upper)).all(-1) & (allowed(tried) >= 0).all(-1)
        assert (tried[good] >= best.lowest[i] - 1e-9).all()
        assert (tried[good] <= best.highest[i] + 1e-9).all()
        for j in range(K):
            for sign, extreme in ((1, best.lowest[i, j]), (-1, best.highest[i, j])):
                run = minimize(
                    lambda p, j=j, sign=sign: sign * p[j],
                    best.proportions[i],
                    method="SLSQP",
                    bounds=list(zip(lower, upper, strict=True)),
                    constraints=[
                        {"type": "eq", "fun": lambda p: p.sum() - 1},
                        {"type": "ineq", "fun": allowed},
                    ],
                    options={"ftol": 1e-14, "maxiter": 300},
                )
                right = abs(run.x.sum() - 1) < 1e-9 and (allowed(run.x) > -1e-9).all()
                assert not right or sign * extreme <= sign * run.x[j] + 1e-6
                found += right and abs(extreme - run.x[j]) < 1e-5
    assert found > 0.8 * count * 2 * K
    assert np.isnan(search(names[0]).lowest).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lower": 0.3}, "the lower bounds sum to more than 1"),
        ({"lower": -0.1}, "lower must not be negative"),
        ({"upper": 40}, "upper must be at most 1; bounds are parts of the whole, not percent"),
        ({"upper": 0.1}, "the upper bounds, with the tokens available, sum to less than 1"),
        ({"available": 1e9, "budget": 1e11}, "the upper bounds, with the tokens available, sum to less than 1"),
        ({"lower": [0, 0, 0.5, 0, 0], "upper": [1, 1, 0.4, 1, 1]}, "the lower bound of domain 3 is above its upper"),
        ({"lower": np.nan}, "a bound is NaN"),
        ({"lower": [[0] * 5, [0.5] * 5]}, r"in problem \(1,\): the lower bounds sum to more than 1"),
        ({"strength": -0.1, "prior": [0.2] * 5}, "strength must not be negative"),
        ({"available": 1e9, "budget": 0}, "budget must be positive"),
        ({"within": 0}, "within must be positive"),
        ({"available": -1, "budget": 1e9}, "available must not be negative"),
        ({"weights": [1, 2]}, r"weights has shape \(2,\); it must end in \(5,\)"),
        ({"sums": [[1, 1, 0]]}, r"sums has shape \(1, 3\); it must end in \(1, 5\)"),
        ({"weights": np.ones((2, 5)), "lower": np.zeros((3, 5))}, "do not broadcast"),
    ],
)
def test_bad_bounds_and_shapes_are_one_clear_error(options, words):
    with pytest.raises(ValueError, match=f"^domain_mixture: .*{words}"):
        jl.optimize_mixture(LAW, "410M", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proportions": np.full(5, 0.2)}, "proportions is what is searched for"),
        ({"budget": 1e9}, "give available and budget together"),
        ({"prior": [0.2] * 5}, "give prior and strength together"),
        ({"strength": 0.1}, "give prior and strength together"),
        ({"weights": np.ones(5), "targets": np.ones(5)}, "give weights or targets, not both"),
        ({"weights": "abc"}, "weights must hold numbers"),
        ({"lowest": 0.1}, "unknown input 'lowest'"),
    ],
)
def test_misuse_is_one_clear_error(options, words):
    with pytest.raises(TypeError, match=words):
        jl.optimize_mixture(LAW, "410M", **options)
    with pytest.raises(TypeError, match="parallel has no input whose elements sum to 1"):
        jl.optimize_mixture(jl.laws["parallel"], "pile")


def test_float32_is_kept_and_close():
    options, _ = problems(300, seed=4)
    single = {name: np.asarray(value, np.float32) for name, value in options.items()}
    small, exact = by_eights("410M", **single), by_eights("410M", **options)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(small)} <= {"float32", "int32", "bool"}
    assert exact.loss.dtype == np.float64
    value = lambda best: best.loss + best.penalty  # noqa: E731
    np.testing.assert_allclose(value(small)[small.converged], value(exact)[small.converged], atol=1e-5)
    assert small.converged.mean() > 0.99


def test_data_mixing_has_the_optimum_that_is_known():
    best = jl.optimize_mixture(jl.laws["data_mixing"], "pile_70m")
    np.testing.assert_allclose(best.proportions, [0.2512, 0.2108, 0.1031, 0.1489, 0.2860], atol=5e-5)
    np.testing.assert_allclose(best.loss, 2.937225, atol=5e-7)
    assert best.converged
    assert best.gap < 1e-10


def test_crossed_bounds_are_infeasible_where_no_error_can_say_so():
    low = np.array([0.6, 0, 0, 0, 0])
    best = jax.jit(lambda low: jl.optimize_mixture(LAW, "410M", lower=low, upper=0.5), compiler_options=QUICK)(low)
    assert not best.feasible
    assert not best.converged
    assert np.isinf(best.gap)


def test_infinite_strength_gives_the_mixture_closest_to_the_prior():
    """That is the prior times a number, cut off at the bounds."""
    options, _ = problems(16, seed=5)
    prior, lower, upper = options["prior"], options["lower"], options["upper"]
    low, high = np.zeros((16, 1)), np.full((16, 1), 1e3)
    for _ in range(200):
        middle = (low + high) / 2
        over = np.clip(middle * prior, lower, upper).sum(-1, keepdims=True) > 1
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    closest = np.clip(low * prior, lower, upper)
    bounds = {"lower": lower, "upper": upper, "prior": prior}
    for more in ({}, {"targets": 0.0}):
        best = search("410M", **bounds, strength=np.inf, **more)
        assert best.converged.all()
        np.testing.assert_allclose(best.proportions, closest, atol=1e-8)
        np.testing.assert_allclose(best.penalty, (closest * np.log(closest / prior)).sum(-1), atol=1e-8)
        losses = [loss_by_hand(LAW.groups["410M"], p) for p in closest]
        np.testing.assert_allclose(best.losses, losses, rtol=1e-7)
        np.testing.assert_allclose(best.loss, np.max(losses, -1) if more else np.mean(losses, -1), rtol=1e-7)
        assert (best.gap < 1e-9).all()
    alone = search("410M", prior=prior, strength=np.inf, within=0.01)
    for found in (alone.proportions, alone.lowest, alone.highest):
        np.testing.assert_allclose(found, prior, atol=1e-9)


def test_what_is_not_finite_is_part_of_a_search(looked_for):
    assert search("410M", sums=[[1, 1, 0, 0, 0]], sum_lower=0.5, **NO_PRIOR).converged
