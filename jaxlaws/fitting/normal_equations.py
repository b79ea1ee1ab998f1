"""Normal equations of many small problems at once, whose blocks may share coefficients, between bounds.

Axes are [row, block, problem] or [coefficient, block, problem], so that whole vectors of problems go through each
instruction. Blocks of a problem share its first coefficients, so that the equations are those of small blocks and a
border; without shared coefficients every block is a problem of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.optimize.interior_point import symmetric_solution

__all__ = ["FEW_ROWS", "UNROLLED", "Blocks", "diagonal_of", "normal_equations", "product", "sums"]

FEW_ROWS = 1 << 10  # of which rounding leaves no more in one sum than in the terms
MANY_PROBLEMS = 64
UNROLLED = 5  # coefficients; sums over the rows for more of them are not written out, which takes less to compile
LARGEST = 200.0  # logarithm of what a step multiplies a coefficient with


class Blocks(NamedTuple):
    """How blocks belong together, and between which bounds coefficients are kept.

    Attributes:
        shared: How many coefficients, the first ones, all blocks of a problem have in common.
        lower: Least values, [coefficient, 1, 1].
        upper: Largest values.
        scaled: For each coefficient, whether it may have any order of magnitude: steps multiply it where its bounds
            leave it one sign.
    """

    shared: int
    lower: Any
    upper: Any
    scaled: Sequence[bool] = ()

    def multiplied(self, x: jax.Array) -> jax.Array:
        """Which coefficients steps multiply."""
        one_sign = (self.lower >= 0) & (x > 0) | (self.upper <= 0) & (x < 0)
        found: jax.Array = jnp.asarray(self.scaled)[:, None, None] & one_sign
        return found

    def moved(self, x: jax.Array, step: jax.Array) -> jax.Array:
        """Where a step leads to, between the bounds."""
        multiplied = self.multiplied(x)
        factor = jnp.exp(jnp.clip(step / jnp.where(multiplied, x, jnp.inf), -LARGEST, LARGEST))
        return jnp.clip(jnp.where(multiplied, x * factor, x + step), self.lower, self.upper)

    def total(self, values: jax.Array) -> jax.Array:
        """Values [block, problem], summed over the blocks of each problem."""
        return jnp.sum(values, 0, keepdims=True) if self.shared else values

    def least(self, values: jax.Array) -> jax.Array:
        """The least of values [block, problem] over the blocks of each problem."""
        return jnp.min(values, 0, keepdims=True) if self.shared else values

    def totals(self, values: jax.Array) -> jax.Array:
        """Values of coefficients; those of shared ones are summed, and are alike in all blocks."""
        if not self.shared:
            return values
        sums = jnp.sum(values[: self.shared], 1, keepdims=True)
        return jnp.concatenate([jnp.broadcast_to(sums, (self.shared, *values.shape[1:])), values[self.shared :]])

    def step(self, matrix: jax.Array, gradient: jax.Array, damping: jax.Array, x: jax.Array) -> jax.Array:
        """The step from x that solves the equations of a matrix plus a diagonal, `damping`, between the bounds."""
        slope = self.totals(gradient)
        held = ((x <= self.lower) & (slope > 0)) | ((x >= self.upper) & (slope < 0))
        held = held | ~(self.totals(diagonal_of(matrix)) > 0)

        def stopped(state: _Stops) -> _Stops:
            """What would pass a bound stops there, and the others are solved for again."""
            slope = self.totals(gradient + product(matrix, state.step))
            diagonal = jnp.where(state.held, jnp.inf, damping)
            change = self.solution(matrix, diagonal, jnp.where(state.held, 0, slope))
            change = jnp.where(state.held, state.step, -change)
            crossing = ~state.held & ((x + change < self.lower) | (x + change > self.upper))
            held = state.held | crossing
            step = jnp.where(held, jnp.clip(x + change, self.lower, self.upper) - x, 0)
            return _Stops(held, step, change, jnp.any(crossing), state.rounds + 1)

        state = _Stops(held, jnp.zeros_like(x), jnp.zeros_like(x), jnp.asarray(True), jnp.asarray(0))
        held, step, change = lax.while_loop(lambda state: state.again & (state.rounds < 3), stopped, state)[:3]
        return jnp.clip(x + jnp.where(held, step, change), self.lower, self.upper) - x

    def solution(self, matrix: jax.Array, diagonal: jax.Array, right: jax.Array) -> jax.Array:
        """The solution of the equations of a matrix plus a diagonal, with 0 where the diagonal is infinite.

        Rows of shared coefficients are summed over the blocks; the others are eliminated block by block.
        """
        shared = self.shared
        if not shared:
            return symmetric_solution(matrix, diagonal, right)[0]
        free = jnp.isfinite(diagonal)
        border = jnp.sum(matrix[:shared, :shared], 2, keepdims=True)
        top, corner = right[:shared, :1], diagonal[:shared, :1]
        if len(right) == shared:
            return jnp.broadcast_to(symmetric_solution(border, corner, top)[0], right.shape)
        coupling = [jnp.where(free[shared:], matrix[shared:, s], 0) for s in range(shared)]
        own = matrix[shared:, shared:], diagonal[shared:]
        alone, *answers = symmetric_solution(*own, right[shared:], *coupling)
        schur = [
            [border[s, t] - self.total(jnp.sum(coupling[s] * answers[t], 0)) for t in range(shared)]
            for s in range(shared)
        ]
        rest = [top[s] - self.total(jnp.sum(coupling[s] * alone, 0)) for s in range(shared)]
        found = symmetric_solution(jnp.stack([jnp.stack(row) for row in schur]), corner, jnp.stack(rest))[0]
        others = alone - functools.reduce(jnp.add, [found[s] * answers[s] for s in range(shared)])
        return jnp.concatenate([jnp.broadcast_to(found, (shared, *right.shape[1:])), others])


class _Stops(NamedTuple):
    held: jax.Array
    step: jax.Array  # of what is held
    change: jax.Array
    again: jax.Array  # whether more has come to be held
    rounds: jax.Array


def sums(terms: Sequence[jax.Array]) -> list[jax.Array]:
    """Sums over the rows of [row, block, problem].

    Of few problems, one pass over the rows computes all of them, and what terms have in common once; many fill the
    vectors of a processor in one sum after the other.
    """
    if not terms or len(terms[0]) > FEW_ROWS or terms[0].shape[-1] >= MANY_PROBLEMS:
        return [jnp.sum(term, 0) for term in terms]
    zero = np.zeros((), terms[0].dtype)

    def add(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        return [x + y for x, y in zip(a, b, strict=True)]

    return [*lax.reduce([*terms], [zero] * len(terms), add, (0,))]


def normal_equations(jacobian: Any, weight: jax.Array, force: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
    """Weighted sums over rows of the products of [row, block, problem], and those of the products with a vector.

    The sums of `others`, too.
    """
    count = len(jacobian)
    if count > UNROLLED:
        each = jnp.stack(jacobian) if isinstance(jacobian, list) else jacobian
        matrix = jnp.einsum("pr...,qr...->pq...", each * weight, each)
        return matrix, jnp.sum(each * force, 1), *sums(others)
    places = [(i, j) for i in range(count) for j in range(i + 1)]
    terms = [jacobian[i] * weight * jacobian[j] for i, j in places] + [slope * force for slope in jacobian]
    found = sums([*terms, *others])
    of = dict(zip(places, found, strict=False))
    matrix = jnp.stack([jnp.stack([of[max(i, j), min(i, j)] for j in range(count)]) for i in range(count)])
    return matrix, jnp.stack(found[len(places) : len(terms)]), *found[len(terms) :]


def diagonal_of(matrix: jax.Array) -> jax.Array:
    """[number, block, problem]."""
    return jnp.stack([matrix[i, i] for i in range(len(matrix))])


def product(matrix: jax.Array, step: jax.Array) -> jax.Array:
    """Of a matrix and a vector of each block."""
    found: jax.Array = jnp.sum(matrix * step[None], 1)
    return found
