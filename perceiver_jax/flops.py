"""Floating-point operations of the products in a function, from its jaxpr."""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(function: Callable, *args: Any) -> int:
    """Counts multiplies and adds of all matrix products and convolutions, as the paper does.

    Nothing is compiled or run. The paper's figures (tables 5-7) are higher by about 0.1 %:
    presumably the softmax, norms and residual sums, which are left out here.

    Args:
      function: any JAX function.
      *args: its arguments, or their shapes (`jax.ShapeDtypeStruct`).

    Returns:
      Two for each multiply-add; the body of a scan counts once a step. What no result depends on,
      such as the gradients of inputs that nobody asked for, is not counted: XLA leaves it out.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            outputs = math.prod(equation.outvars[0].aval.shape)
            total += 2 * outputs * math.prod(shape[axis] for axis in contracted)
            continue
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            outputs = math.prod(equation.outvars[0].aval.shape)
            # In the backward pass of a stride zeros lie between the numbers: no products.
            zeros = math.prod(equation.params["lhs_dilation"])
            total += 2 * outputs * math.prod(kernel) // features // zeros
            continue
        counts = [_count(j) for value in equation.params.values() for j in _jaxprs(value)]
        # Branches are forms of the same for several platforms (`kernels`), of which one is run.
        inner = max(counts) if equation.primitive.name == "cond" else sum(counts)
        total += inner * equation.params.get("length", 1)
    return total


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    values = value if isinstance(value, (tuple, list)) else [value]
    closed = [v.jaxpr if isinstance(v, core.ClosedJaxpr) else v for v in values]
    return [v for v in closed if isinstance(v, core.Jaxpr)]
