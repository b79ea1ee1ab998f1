"""What training and serving a model cost, as functions of the inputs of a law, for [`allocate`][jaxlaws.allocate].

A cost is any pure function from the inputs of one configuration, as the record that the law takes, to a positive
number. Numbers that belong to a problem and not to the function go into a `jax.tree_util.Partial`, as those here do:
they may have batch axes, and another value does not compile anything anew.
"""

from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from jaxlaws.law import Scalar, variables

__all__ = ["moe_active", "moe_total", "stream_latency", "stream_memory", "training", "training_and_inference"]


def training(inputs: Any) -> Scalar:
    """FLOP of training: 6 for each parameter and token (Kaplan et al. 2020, arXiv:2001.08361).

    Example:
        >>> import jaxlaws as jl
        >>> jl.costs.training(jl.laws["chinchilla"].inputs(params=1e9, tokens=2e10))
        1.2e+20
    """
    return 6 * _params(inputs) * _tokens(inputs)


def training_and_inference(inference_tokens: Any) -> Partial:
    """FLOP of training and of serving so many tokens, 2 for each parameter (Sardana et al. 2023, arXiv:2401.00448).

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.training_and_inference(1e12)
        >>> cost(jl.laws["chinchilla"].inputs(params=1e9, tokens=2e10))
        2.12e+21
    """
    return Partial(_training_and_inference, inference_tokens=inference_tokens)


def _training_and_inference(inputs: Any, inference_tokens: Any) -> Scalar:
    return training(inputs) + 2 * _params(inputs) * inference_tokens


def moe_total(expert_share: Any = 2 / 3) -> Partial:
    """Parameters of a mixture of experts, that is, its memory.

    Args:
        expert_share: The part of the dense model that there is once for each expert: 2/3 where every feed-forward
            layer of the usual width has experts.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.moe_total(expert_share=0.5)
        >>> cost(jl.laws["moe"].inputs(dense_parameter_count=1e9, num_experts=8))
        4500000000.0
    """
    return Partial(_moe, expert_share=expert_share, experts_per_token=None)


def moe_active(expert_share: Any = 2 / 3, experts_per_token: Any = 1) -> Partial:
    """Parameters of a mixture of experts that one token meets, that is, its compute.

    Args:
        expert_share: See [`moe_total`][jaxlaws.costs.moe_total].
        experts_per_token: Experts that a token is sent to.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.moe_active(expert_share=0.5, experts_per_token=2)
        >>> cost(jl.laws["moe"].inputs(dense_parameter_count=1e9, num_experts=8))
        1500000000.0
    """
    return Partial(_moe, expert_share=expert_share, experts_per_token=experts_per_token)


def _moe(inputs: Any, expert_share: Any, experts_per_token: Any) -> Scalar:
    experts = inputs.num_experts if experts_per_token is None else experts_per_token
    return _params(inputs) * (1 - expert_share + expert_share * experts)


def stream_memory(bytes_per_stream: Any, bytes_per_param: Any = 2) -> Partial:
    """Bytes of memory of a model with parallel streams: its parameters once, and what each stream keeps for itself.

    Args:
        bytes_per_stream: Keys, values and activations of one stream.
        bytes_per_param: 2 for 16-bit parameters.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.stream_memory(bytes_per_stream=5e8)
        >>> cost(jl.laws["parallel"].inputs(num_params=1e9, parallel_size=4))
        4000000000.0
    """
    return Partial(_stream_memory, bytes_per_stream=bytes_per_stream, bytes_per_param=bytes_per_param)


def _stream_memory(inputs: Any, bytes_per_stream: Any, bytes_per_param: Any) -> Scalar:
    return bytes_per_param * _params(inputs) + bytes_per_stream * inputs.parallel_size


def stream_latency(
    bytes_per_second: Any, flop_per_second: Any, bytes_per_stream: Any = 0.0, bytes_per_param: Any = 2
) -> Partial:
    """Seconds for one token of a model with parallel streams: memory is read, then computed with.

    Args:
        bytes_per_second: What is read from memory in a second: parameters once, and what each stream keeps.
        flop_per_second: What is computed in a second: 2 FLOP for each parameter and stream.
        bytes_per_stream: Keys and values of one stream.
        bytes_per_param: 2 for 16-bit parameters.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.stream_latency(bytes_per_second=1e12, flop_per_second=1e14)
        >>> round(cost(jl.laws["parallel"].inputs(num_params=1e9, parallel_size=4)), 6)
        0.00208
    """
    return Partial(
        _stream_latency,
        bytes_per_second=bytes_per_second,
        flop_per_second=flop_per_second,
        bytes_per_stream=bytes_per_stream,
        bytes_per_param=bytes_per_param,
    )


def _stream_latency(inputs: Any, bytes_per_second: Any, flop_per_second: Any, **memory: Any) -> Scalar:
    compute = 2 * _params(inputs) * inputs.parallel_size / flop_per_second
    return _stream_memory(inputs, **memory) / bytes_per_second + compute


def _params(inputs: Any) -> Any:
    """The number of parameters, whatever the law calls it."""
    names = [v.name for v in variables(type(inputs)) if v.unit == "parameters"]
    if not names:
        raise TypeError(f"this cost needs an input in parameters, which {_law(inputs)} does not have; give cost=")
    return getattr(inputs, names[0])


def _tokens(inputs: Any) -> Any:
    if not hasattr(inputs, "tokens"):
        raise TypeError(f"this cost needs an input called tokens, which {_law(inputs)} does not have; give cost=")
    return inputs.tokens


def _law(inputs: Any) -> str:
    return type(inputs).__module__.rpartition(".")[2]
