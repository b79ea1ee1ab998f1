"""The elementary functions against mpmath and NumPy."""

from __future__ import annotations

import functools

import jax
import jax.export
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlaws import numerics

DTYPES = [np.float32, np.float64]
NORMAL = float(np.finfo(float).tiny)  # smaller numbers count as 0


@functools.cache
def compiled(function, dtype):
    """The function compiled for arrays of a dtype, whatever JAX is set to."""

    def call(*xs):
        with jax.enable_x64(True):
            found = np.asarray(jitted(*(np.asarray(x, dtype) for x in xs)))
        assert found.dtype == dtype
        return found

    jitted = jax.jit(function)
    return call


def ulps(found, exact):
    """The error in units in the last place of the exact result once rounded, for results in the normal range.

    Infinity counts as the number that would follow the largest.
    """
    info = np.finfo(found.dtype)
    bits = info.nmant + 1
    with mpmath.workprec(bits):
        rounded = +exact
    _, exponent = mpmath.frexp(rounded)
    unit = mpmath.ldexp(1, exponent - bits)
    if abs(exact) >= mpmath.ldexp(1, info.maxexp) - unit / 2 or abs(exact) < 2 * mpmath.mpf(float(info.tiny)):
        return None
    if np.isinf(found):
        found = mpmath.ldexp(1, info.maxexp)
    return abs(mpmath.mpf(float(found)) - exact) / unit


def worst(found, exact):
    """The largest error in units in the last place, with its position; at least half of the results must be normal."""
    errors = [ulps(f, e) for f, e in zip(found, exact, strict=True)]
    normal = [(error, i) for i, error in enumerate(errors) if error is not None]
    assert 2 * len(normal) >= len(errors)
    return max(normal)


def bound(x, y):
    """What a power may be wrong by, relatively, in units of the spacing of numbers at 1."""
    return 2 + 1.2 * np.abs(y * np.log(x, dtype=np.float64))


def worst_power(x, y, found, exact):
    """The largest error of powers over what is allowed, with its position, for normal results."""
    info = np.finfo(found.dtype)
    ends = 2 * mpmath.mpf(float(info.tiny)), mpmath.mpf(float(info.max))
    allowed = bound(x, y) * info.eps
    normal = [i for i, e in enumerate(exact) if ends[0] <= e <= ends[1] * (1 - float(allowed[i]))]
    assert 2 * len(normal) >= len(exact)
    return max((abs(mpmath.mpf(float(found[i])) / exact[i] - 1) / allowed[i], i) for i in normal)


def exact_log(x):
    with mpmath.workprec(200):
        return [mpmath.log(mpmath.mpf(float(v))) for v in x]


def exact_power(x, y):
    with mpmath.workprec(200):
        logs = [mpmath.log(mpmath.mpf(float(v))) for v in x]
        return [mpmath.exp(mpmath.mpf(float(w)) * log) for log, w in zip(logs, y, strict=True)]


def around(x, steps=3):
    """These numbers and the next ones on both sides."""
    x = np.asarray(x)
    found = [x]
    for end in (-np.inf, np.inf):
        moved = x
        for _ in range(steps):
            moved = np.nextafter(moved, x.dtype.type(end))
            found.append(moved)
    return np.unique(np.concatenate(found))


def normals(dtype, count, random):
    """Numbers from the whole normal range, with all kinds of bits."""
    info = np.finfo(dtype)
    integer = np.dtype(f"i{info.bits // 8}")
    low, high = (int(np.asarray(end, dtype).view(integer)) for end in (info.tiny, info.max))
    return random.integers(low, high, count, dtype=integer, endpoint=True).view(dtype)


def near_one(dtype):
    digits = 10.0 ** -np.arange(1, np.finfo(dtype).precision + 1)
    off = np.concatenate([digits, 3 * digits, 7 * digits])
    x = around(np.concatenate([1 - off, 1 + off]).astype(dtype))
    return x[(x > 0) & (x != 1)]


def near_edges(dtype):
    """Numbers at which the logarithm takes another factor or another power of two."""
    edges = np.array([0.8, 1.2, 1.6])
    return around(np.concatenate([edges * 2.0**e for e in (-70, -1, 0, 1, 33)]).astype(dtype))


def reach(x, parts):
    """Exponents with which powers of x come to these parts of the way to the end of the normal range, on both sides."""
    info = np.finfo(x.dtype)
    logs = np.log(np.abs(x).astype(np.longdouble))
    ends = np.log(np.array([info.tiny, info.max], np.longdouble))
    with np.errstate(over="ignore"):
        return np.clip(parts * ends[(parts > 0).astype(int)] * np.sign(parts) / logs, -info.max, info.max).astype(
            x.dtype
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_is_within_2_ulp(dtype):
    random = np.random.default_rng(0)
    x = np.concatenate([
        normals(dtype, 3000, random),
        random.uniform(0.5, 2, 3000).astype(dtype),
        near_one(dtype),
        near_edges(dtype),
        np.array([np.finfo(dtype).max], dtype),
    ])  # fmt: skip
    found = compiled(numerics.log, dtype)(x)
    error, i = worst(found, exact_log(x))
    assert error <= 2, x[i]


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_is_within_its_bound(dtype):
    random = np.random.default_rng(0)
    x = np.concatenate([
        normals(dtype, 3000, random),
        np.exp2(random.uniform(-1, 1, 3000)).astype(dtype),
        *[near_one(dtype)] * 2,
        *[near_edges(dtype)] * 2,
    ])  # fmt: skip
    x = x[x != 1]
    y = reach(x, random.uniform(-1, 1, x.size))
    found = compiled(numerics.power, dtype)(x, y)
    error, i = worst_power(x, y, found, exact_power(x, y))
    assert error <= 1, (x[i], y[i])


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_is_within_its_bound_at_the_exponents_of_laws(dtype):
    random = np.random.default_rng(0)
    exponents = [-0.9108617183578192, -0.25125, -0.0146927813, 0.5, -0.5, 1.0, -1.0, 1.7, 2.0, 3.0]
    x, y = (a.ravel() for a in np.meshgrid(10 ** random.uniform(-12, 12, 300), exponents))
    x, y = x.astype(dtype), y.astype(dtype)
    error, i = worst_power(x, y, compiled(numerics.power, dtype)(x, y), exact_power(x, y))
    assert error <= 1, (x[i], y[i])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_power_is_within_its_bound_up_to_the_ends_of_the_range(dtype, end):
    random = np.random.default_rng(0)
    x = np.concatenate([normals(dtype, 500, random), near_one(dtype)])
    y = np.concatenate([reach(x, np.full(x.shape, part * end)) for part in (0.98, 0.99, 1, 1.01)])
    x = np.tile(x, 4)
    found, exact = compiled(numerics.power, dtype)(x, y), exact_power(x, y)
    error, i = worst_power(x, y, found, exact)
    assert error <= 1, (x[i], y[i])
    info = np.finfo(dtype)
    with mpmath.workprec(200):
        off = [1 + float(info.eps) * allowed for allowed in bound(x, y)]
        beyond = [e >= mpmath.ldexp(1, info.maxexp) * each for e, each in zip(exact, off, strict=True)]
        below = [e * each < mpmath.mpf(float(info.tiny)) for e, each in zip(exact, off, strict=True)]
    assert any(beyond) or any(below)
    assert np.all(np.isposinf(found[beyond]))
    assert np.all(found[below] == 0), "what would be subnormal is 0"


@settings(deadline=None, max_examples=300)
@given(st.floats(min_value=NORMAL, allow_infinity=False), st.floats(-1, 1))
def test_any_power_is_within_its_bound(x, part):
    x = np.array([x])
    y = reach(x, np.array([part])) if x != 1 else np.array([part])
    found = compiled(numerics.power, np.float64)(x, y)
    (exact,) = exact_power(x, y)
    if 2 * NORMAL <= exact <= np.finfo(float).max * (1 - 1e-12):
        assert abs(float(found[0] / exact - 1)) <= bound(x, y) * np.finfo(float).eps


@settings(deadline=None, max_examples=300)
@given(
    st.just(0.0) | st.floats(min_value=NORMAL, allow_infinity=False), st.floats(allow_nan=False, allow_subnormal=False)
)
def test_any_power_is_that_of_numpy(x, y):
    found = compiled(numerics.power, np.float64)([x], [y])
    with np.errstate(all="ignore"):
        expected = np.power(np.array([x]), y)
    if 0 < expected < 2 * NORMAL:
        assert found == 0 or expected > NORMAL * (1 - 1e-12)
    elif 0 < expected < np.inf:
        np.testing.assert_allclose(found, expected, rtol=800 * np.finfo(float).eps)
    else:
        assert found == expected or found > np.finfo(float).max * (1 - 1e-12)


@settings(deadline=None, max_examples=300)
@given(st.floats(min_value=NORMAL, allow_infinity=False))
def test_any_log_is_within_2_ulp(x):
    found = compiled(numerics.log, np.float64)([x])
    assert found == 0 if x == 1 else ulps(found[0], *exact_log([x])) <= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_is_exact_where_base_or_exponent_says_so(dtype):
    info = np.finfo(dtype)
    numbers = np.array([0.0, -0.0, info.smallest_subnormal, info.tiny, 0.5, 1.0, 3.0, info.max, np.inf])
    power = compiled(numerics.power, dtype)
    assert np.all(power(np.ones(len(numbers)), numbers) == 1)
    assert np.all(power(np.ones(len(numbers)), -numbers) == 1)
    assert np.all(power([*numbers, np.nan], np.zeros(len(numbers) + 1)) == 1)
    assert np.isnan(power([1.0], [np.nan])), "unlike NumPy: what is not known of a coefficient stays unknown"
    assert np.all(power([-1.0, -np.inf, -2.5], [0.0, -0.0, 0.0]) == 1)
    assert compiled(numerics.log, dtype)([1.0]) == 0


SPECIAL_EXPONENTS = [0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", SPECIAL_EXPONENTS)
def test_power_at_the_ends_is_that_of_numpy(dtype, exponent):
    info = np.finfo(dtype)
    x = [0.0, -0.0, np.inf, np.nan, 1.0, 0.5, 2.0, info.max, info.tiny, info.tiny / 2, info.smallest_subnormal]
    x = np.array(x, dtype)
    with np.errstate(all="ignore"):
        expected = np.power(np.where(x < info.tiny, 0, np.abs(x)), dtype(exponent))  # what is subnormal is 0
    expected[expected <= info.tiny] = 0
    expected[(x == 1) & np.isnan(exponent)] = np.nan
    found = compiled(numerics.power, dtype)(x, np.full(x.shape, exponent))
    normal = np.isfinite(expected) & (expected != 0)
    np.testing.assert_array_equal(found[~normal], expected[~normal])
    normal &= x < info.max  # a power of which may be wrong by so much as to be infinite
    np.testing.assert_allclose(found[normal], expected[normal], rtol=200 * info.eps)
    assert not np.signbit(found[~np.isnan(found)]).any(), "all zeros are positive, and their powers"


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_at_the_ends_is_that_of_numpy(dtype):
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, np.inf, np.nan, 1.0, info.max, info.tiny / 2, info.smallest_subnormal, -1.0], dtype)
    with np.errstate(all="ignore"):
        expected = np.log(np.where((x > 0) & (x < info.tiny), 0, x))
    found = compiled(numerics.log, dtype)(x)
    normal = np.isfinite(expected) & (expected != 0)
    np.testing.assert_array_equal(found[~normal], expected[~normal])
    np.testing.assert_array_max_ulp(found[normal], expected[normal], 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_below_0(dtype):
    info = np.finfo(dtype)
    x = -np.array([info.tiny, 0.5, 1.0, 2.0, info.max, np.inf], dtype)
    assert np.isnan(compiled(numerics.log, dtype)(x)).all()
    power = compiled(numerics.power, dtype)
    for exponent in SPECIAL_EXPONENTS[1:]:
        assert np.isnan(power(x, np.full(x.shape, exponent))).all()


@pytest.mark.parametrize("exponent", SPECIAL_EXPONENTS)
def test_half_precision_has_the_same_ends(exponent):
    x = np.array([0.0, -0.0, 1.0, np.inf, np.nan, -1.0, -np.inf, 4.0], np.float32)
    single = numerics.power(x, exponent)
    half = numerics.power(jnp.asarray(x, "bfloat16"), exponent)
    assert half.dtype == jnp.bfloat16
    told = ~np.isnan(exponent) | (x != 1)  # 1 to the power of NaN is 1 in XLA
    half, single = np.asarray(half, np.float32), np.asarray(single.astype("bfloat16"), np.float32)
    np.testing.assert_array_equal(half[told], single[told])
    assert not np.signbit(half[:2]).any()


ORDERS = ["x", "y", "xx", "xy", "yx", "yy", "xxx", "xxy", "xyx", "yxx", "xyy", "yxy", "yyx", "yyy"]


def derivative(order, function=numerics.power):
    """The derivative by base ("x") and exponent ("y"), one after the other."""
    for argument in order:
        function = jax.grad(function, argnums="xy".index(argument))
    return function


def all_derivatives(x, y):
    return jnp.stack([jax.vmap(derivative(order))(x, y) for order in ORDERS])


ENDS = [(zero, exponent) for zero in (0.0, -0.0) for exponent in (0.5, 1.0, 2.0, 3.0, 1.5, -0.5, -1.0)]
ENDS += [(0.0, 0.0), *[(np.inf, exponent) for exponent in (0.5, 1.0, 2.0, 0.0, -0.5, -1.0, 3.0)]]


@functools.cache
def derivatives(dtype):
    """Points, and all derivatives there; and those at the ends by order, by the text of the point: 0 has two signs."""
    random = np.random.default_rng(0)
    x = np.concatenate([10 ** random.uniform(-3, 6, 20), [0.5, 1, 1, 1, 1 + 1e-3, 2, 3.7, 3.7, 3.7]]).astype(dtype)
    y = np.concatenate([random.uniform(-2, 3, 20), [0.5, 0, 1, -0.3, 1.7, 2, 0, 1, 2]]).astype(dtype)
    ends = np.array(ENDS, dtype).T
    found = compiled(all_derivatives, dtype)(np.append(x, ends[0]), np.append(y, ends[1]))
    at_ends = found[:, len(x) :].T
    named = {str(point): dict(zip(ORDERS, row, strict=True)) for point, row in zip(ENDS, at_ends, strict=True)}
    return x, y, found[:, : len(x)], named


def derivatives_at(x, y, dtype):
    return derivatives(dtype)[-1][str((x, y))]


def exact_derivative(order, x, y):
    """By mpmath's numerical differentiation, with the size of the parts that the derivative is the sum of."""
    i, j = order.count("x"), order.count("y")
    with mpmath.workdps(80):
        x, y = mpmath.mpf(float(x)), mpmath.mpf(float(y))
        exact = mpmath.diff(lambda a, b: a**b, (x, y), (i, j))
        parts = x ** (y - i) * mpmath.fprod(abs(y) + 1 + k for k in range(i)) * (1 + abs(mpmath.log(x))) ** j
        return float(exact), float(parts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_agree_with_mpmath(dtype):
    x, y, found, _ = derivatives(dtype)
    eps = np.finfo(dtype).eps
    for order, values in zip(ORDERS, found, strict=True):
        exact, parts = np.transpose([exact_derivative(order, *point) for point in zip(x, y, strict=True)])
        assert np.all(np.abs(values - exact) <= 16 * eps * parts), order
        if "y" not in order:  # one product, so that nothing cancels
            assert np.all(np.abs(values - exact) <= (bound(x, y) + 6) * eps * np.abs(exact)), order


def test_derivatives_agree_however_they_are_taken(x64):
    x, y = np.array([0.3, 1.0, 2.0, 1e6]), np.array([-0.4, 0.0, 2.0, 1.3])
    f, r = jax.jacfwd, jax.jacrev
    twice, thrice = [[r, r], [f, f], [f, r], [jax.hessian]], [[f, f, f], [jax.grad, jax.hessian]]

    def taken(modes):
        function = lambda a: numerics.power(a[0], a[1])  # noqa: E731
        for mode in modes:
            function = mode(function)
        return jax.vmap(function)

    @jax.jit
    def every(x, y):
        both = jnp.stack([x, y], axis=1)
        points = [[derivative(order)(x[i], y[i]) for order in ("xy", "xyy")] for i in range(4)]  # one by one
        return [taken(modes)(both) for modes in twice], [taken(modes)(both) for modes in thrice], points

    (second, *others), (third, last), one_by_one = every(x, y)
    for found, modes in zip(others, twice[1:], strict=True):
        np.testing.assert_allclose(found, second, rtol=1e-13, atol=1e-13, err_msg=str(modes))
    np.testing.assert_allclose(last, third, rtol=1e-13, atol=1e-13)
    second, third = np.asarray(second), np.asarray(third)
    np.testing.assert_allclose(one_by_one, np.stack([second[:, 0, 1], third[:, 0, 1, 1]], axis=1), rtol=1e-13)


def test_derivatives_of_arrays_that_broadcast(x64):
    x, y = np.array([[0.5], [2.0]]), np.array([-0.5, 1.0, 3.0])
    slopes = jax.grad(lambda x, y: numerics.power(x, y).sum(), argnums=(0, 1))
    along = lambda y, v: jax.jvp(lambda y: numerics.power(2.0, y), (y,), (v,))  # noqa: E731
    found, (value, change) = jax.jit(lambda x, y, v: (slopes(x, y), along(y, v)))(x, y, np.ones(3))
    np.testing.assert_allclose(found[0], (y * x ** (y - 1)).sum(axis=1, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(found[1], (x**y * np.log(x)).sum(axis=0), rtol=1e-14)
    np.testing.assert_allclose(value, 2.0**y, rtol=1e-14)
    np.testing.assert_allclose(change, value * np.log(2), rtol=1e-14)


def powers_of_zero(y, order):
    """The limit at x = 0 of a derivative of x**y by x, for order = 0, 1, 2, ..."""
    factor = np.prod([y - k for k in range(order)])
    if factor == 0:
        return 0.0
    return factor if y == order else 0.0 if y > order else factor * np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, 1.5, -0.5, -1.0])
def test_derivatives_at_0(dtype, zero, exponent):
    found = derivatives_at(zero, exponent, dtype)
    for order in ("x", "xx", "xxx"):
        assert found[order] == powers_of_zero(exponent, len(order))
    if exponent > 0:
        assert found["y"] == found["yy"] == found["yyy"] == 0
    if exponent > 1:
        assert found["xy"] == found["yx"] == found["xyy"] == found["yxy"] == found["yyx"] == 0
    if exponent > 2:
        assert found["xxy"] == found["xyx"] == found["yxx"] == 0
    if exponent < 0:
        assert not np.isfinite([*found.values()]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_at_exponent_0_of_0(dtype):
    found = derivatives_at(0.0, 0.0, dtype)
    assert found["x"] == found["xx"] == found["xxx"] == 0, "0**0 is 1, and so is all around it"
    assert found["y"] == -np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 0.0, -0.5, -1.0, 3.0])
def test_derivatives_at_infinity(dtype, exponent):
    found = derivatives_at(np.inf, exponent, dtype)
    for i in (1, 2, 3):
        factor = np.prod([exponent - k for k in range(i)])
        expected = 0.0 if factor == 0 or exponent < i else factor if exponent == i else factor * np.inf
        assert found["x" * i] == expected
    assert found["y"] == found["yy"] == (np.inf if exponent >= 0 else 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_of_log(dtype):
    x = np.array([1e-30, 0.5, 1.0, 1 + 1e-3, 7.0, 1e30], dtype)
    steps = [numerics.log]
    for _ in range(3):
        steps.append(jax.grad(steps[-1]))
    found = compiled(lambda x: jnp.stack([jax.vmap(step)(x) for step in steps[1:]]), dtype)(x)
    exact = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        expected = np.stack([1 / exact, -1 / exact**2, 2 / exact**3]).astype(dtype)
    inside = np.abs(expected) > np.finfo(dtype).tiny
    np.testing.assert_allclose(found[inside], expected[inside], rtol=4 * np.finfo(dtype).eps)


half, bfloat, single, double, whole = (
    jnp.float16(2),
    jnp.bfloat16(2),
    np.float32(2),
    np.float64(2),
    np.int32(2),
)


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        (2, 0.5), (2, 3), (2.0, 3), (whole, 0.5), (whole, whole), (np.int64(2), 2), (True, 0.5),
        (half, 0.5), (half, 2), (half, whole), (bfloat, 0.5), (bfloat, whole), (0.5, bfloat), (half, bfloat),
        (single, 0.5), (single, half), (2, single), (double, 2), (double, single), (double, bfloat),
    ],
    ids=lambda arguments: "-".join(type(a).__name__ + getattr(a, "dtype", np.dtype(type(a))).name for a in arguments),
)  # fmt: skip
def test_dtype_of_a_power(arguments, enabled):
    with jax.enable_x64(enabled):
        power = jax.eval_shape(lambda: numerics.power(*arguments))
        log = jax.eval_shape(lambda: numerics.log(arguments[0]))
        assert power.dtype == jnp.result_type(float, *arguments)
        assert log.dtype == jnp.result_type(float, arguments[0])


@pytest.mark.parametrize("arguments", [(2, 3), (whole, 0.5), (half, 0.5), (bfloat, whole), (single, bfloat)])
def test_value_of_a_power_of_any_dtype(arguments):
    found = numerics.power(*arguments)
    x, y = map(float, arguments)
    np.testing.assert_allclose(float(found), x**y, rtol=float(jnp.finfo(found.dtype).eps))
    np.testing.assert_allclose(float(numerics.log(found)), y * np.log(x), rtol=4 * float(jnp.finfo(found.dtype).eps))


def test_python_numbers_neither_widen_nor_retrace(x64):
    traces = []

    @jax.jit
    def function(x, y):
        traces.append(1)
        return numerics.power(x, y), numerics.power(x, 0.5), numerics.power(2, x), numerics.log(x)

    x = np.full(3, 2, np.float32)
    for y in (0.5, 1.5, -2.0, float("inf")):
        assert {found.dtype for found in function(x, y)} == {np.dtype(np.float32)}
    assert len(traces) == 1


def exported(function, *xs, platforms):
    return jax.export.export(jax.jit(function), platforms=platforms)(*xs)


def test_a_program_for_several_platforms_has_a_path_for_each():
    x, y = np.logspace(-3, 3, 7, dtype=np.float32), np.linspace(-2, 2, 7, dtype=np.float32)
    for function, xs, own in ((numerics.power, (x, y), "stablehlo.power"), (numerics.log, (x,), "stablehlo.log")):
        program = exported(function, *xs, platforms=["cpu", "cuda"])
        assert program.platforms == ("cpu", "cuda")
        module = program.mlir_module()
        assert f"{own} " in module
        assert "stablehlo.bitcast_convert" in module
        expected = jax.jit(function)(*xs)
        np.testing.assert_array_equal(program.call(*xs), expected)

        def both(function, xs):
            value, slopes = jax.vjp(function, *xs)
            return value, slopes(np.ones(7, np.float32))

        value, slopes = jax.jit(both, static_argnums=0)(program.call, xs)
        np.testing.assert_array_equal(value, expected)
        for found, want in zip(slopes, jax.jit(both, static_argnums=0)(function, xs)[1], strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_every_platform_gets_its_own_path_only(platform, dtype):
    x = np.ones(4, dtype)
    with jax.enable_x64(True):
        gradients = jax.vmap(jax.grad(numerics.power, argnums=(0, 1)))
        power = exported(numerics.power, x, x, platforms=[platform]).mlir_module()
        slopes = exported(gradients, x, x, platforms=[platform]).mlir_module()
        log = exported(numerics.log, x, platforms=[platform]).mlir_module()
    cpu = platform == "cpu"
    for module, own in ((power, ["power"]), (slopes, ["power", "log"]), (log, ["log"])):
        assert ("bitcast_convert" in module) is cpu
        assert ("round_nearest_even" in module) is (cpu and "power" in own)
        for name in own:
            assert (f"stablehlo.{name} " in module) is not cpu


def test_at_least_is_the_maximum_with_the_derivative_from_above():
    x = np.array([-np.inf, -1.0, 0.5, 1.0, 2.0, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(numerics.at_least(x, 1.0), np.maximum(x, 1))
    slopes = jax.jit(jax.vmap(jax.grad(lambda v: numerics.at_least(v, 1.0))))(x)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 1, 1, 1, 1])


def test_positive_or_takes_what_is_not_positive_as_the_other():
    x = np.array([-np.inf, -1.0, -0.0, 0.0, 1e-30, 2.0, np.inf, np.nan], np.float32)
    expected = np.array([7, 7, 7, 7, 1e-30, 2, np.inf, 7], np.float32)
    np.testing.assert_array_equal(numerics.positive_or(x, 7.0), expected)
    slopes = jax.jit(jax.vmap(jax.grad(lambda v: numerics.positive_or(v, 7.0))))(x)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 0, 1, 1, 1, 0])


def test_matvec_is_the_sum_of_the_products():
    random = np.random.default_rng(0)
    a, b, v, w = (random.random(shape, np.float32) for shape in ((4, 3), (4, 3), 3, 3))
    found = numerics.matvec((jnp.asarray(a), jnp.asarray(v)), (jnp.asarray(b), jnp.asarray(w)))
    np.testing.assert_allclose(found, a @ v + b @ w, rtol=1e-6)
