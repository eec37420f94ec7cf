"""Functions that say their tangent as well as their backward pass.

Reverse mode is the transpose of forward mode. JAX derives it, which for streaming attention would
be slow (each chunk's gradient would be added to an array of all inputs) and is what a CPU's form of
a product is to avoid. `jax.custom_vjp` takes a backward pass written by hand, but then forbids
forward mode. So a function says both, and `differential` joins the two.
"""

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp


def jvp(function, primals, tangents, **keys):
    """`jax.jvp`, where a tangent may be None, for zeros."""
    moving = [i for i, tangent in enumerate(tangents) if tangent is not None]

    def of_moving(*moved):
        args = list(primals)
        for i, x in zip(moving, moved, strict=True):
            args[i] = x
        return function(*args)

    return jax.jvp(of_moving, *([xs[i] for i in moving] for xs in (primals, tangents)), **keys)


def differential(tangent, backward, residuals, tangents, out):
    """`tangent(residuals, tangents)`, which is linear in the tangents, and how it is transposed.

    `jax.custom_derivatives.linear_call` is the same, but can neither be mapped by `jax.vmap` nor be
    differentiated by its residuals, as second derivatives need.

    Args:
      tangent: the function; where a tangent is zero it gets None.
      backward: `backward(residuals, cotangents)`, a tuple of a cotangent for each tangent; it is
        differentiated for second derivatives, and must be what `tangent`'s transpose is.
      residuals: arrays and None in any structure.
      tangents: arrays, None and symbolic zeros.
      out: what is differentiated, of which the result has the structure, shapes and dtypes.
    """
    symbolic_zero = jax.custom_derivatives.SymbolicZero
    tangents = tuple(None if isinstance(t, symbolic_zero) else t for t in tangents)
    args, tree = jax.tree.flatten((residuals, tangents))
    residual_args, residual_tree = jax.tree.flatten(residuals)
    outs, out_tree = jax.tree.flatten(out)
    num_residuals = len(residual_args)

    def flat_tangent(*args):
        return jax.tree.leaves(tangent(*tree.unflatten(args)))

    def flat_backward(*args):
        held, cotangents = args[:num_residuals], args[num_residuals:]
        found = backward(residual_tree.unflatten(held), out_tree.unflatten(cotangents))
        return [x for x, t in zip(found, tangents, strict=True) if t is not None]

    result = _differential_p.bind(
        *args,
        tangent=flat_tangent,
        backward=flat_backward,
        num_residuals=num_residuals,
        avals=tuple(map(jax.typeof, outs)),  # Given, so that training never traces `tangent`.
    )
    return out_tree.unflatten(result)


_differential_p = core.Primitive("differential")
_differential_p.multiple_results = True
_differential_p.def_impl(lambda *args, tangent, **_: tangent(*args))
_differential_p.def_abstract_eval(lambda *_, avals, **__: avals)
mlir.register_lowering(_differential_p, mlir.lower_fun(_differential_p.impl, multiple_results=True))


def _differential_jvp(primals, tangents, **params):
    tangents = [None if isinstance(t, ad.Zero) else t for t in tangents]
    out = _differential_p.bind(*primals, **params)
    return out, jvp(params["tangent"], primals, tangents)[1]


def _differential_transpose(cotangents, *args, backward, num_residuals, **_):
    cotangents = map(ad.instantiate_zeros, cotangents)
    return [None] * num_residuals + backward(*args[:num_residuals], *cotangents)


def _differential_vmap(args, axes, *, tangent, backward, num_residuals, avals):
    args, axes = list(args), list(axes)
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    for i in range(num_residuals, len(args)):
        if axes[i] is None:  # Tangents are all mapped, for their cotangents are.
            args[i], axes[i] = jnp.broadcast_to(args[i][None], (size, *args[i].shape)), 0
    backward_axes = [*axes[:num_residuals], *(0 for _ in avals)]
    out = _differential_p.bind(
        *args,
        tangent=jax.vmap(tangent, axes),
        backward=jax.vmap(backward, backward_axes, axes[num_residuals:]),
        num_residuals=num_residuals,
        avals=tuple(aval.update(shape=(size, *aval.shape)) for aval in avals),
    )
    return out, [0] * len(out)


ad.primitive_jvps[_differential_p] = _differential_jvp
ad.primitive_transposes[_differential_p] = _differential_transpose
batching.primitive_batchers[_differential_p] = _differential_vmap
