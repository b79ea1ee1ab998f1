"""What training and serving a model cost, as functions of the inputs of a law, for [`allocate`][jaxlaws.allocate].

A cost is any pure function from the inputs of one configuration, as the record that the law takes, to a positive
number. Numbers that belong to a problem and not to the function go into a `jax.tree_util.Partial`, as those here do:
they may have batch axes, and another value does not compile anything anew.
"""

from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from jaxlaws.law import Scalar, variables

__all__ = [
    "distillation",
    "fine_grained",
    "moe_active",
    "moe_total",
    "stream_latency",
    "stream_memory",
    "training",
    "training_and_inference",
    "training_in_bits",
    "vocabulary",
    "weight_bytes",
]


def training(inputs: Any) -> Scalar:
    """FLOP of training: 6 for each parameter and token (Kaplan et al. 2020, arXiv:2001.08361).

    Where a token meets but a share of the parameters, as in `sparsity`, those that it meets count.

    Example:
        >>> import jaxlaws as jl
        >>> jl.costs.training(jl.laws["chinchilla"].inputs(params=1e9, tokens=2e10))
        1.2e+20
        >>> jl.costs.training(jl.laws["sparsity"].inputs(params=1e9, tokens=2e10, active_share=0.25))
        3e+19
    """
    return 6 * _active(inputs) * _tokens(inputs)


def training_and_inference(inference_tokens: Any) -> Partial:
    """FLOP of training and of serving so many tokens, 2 for each parameter (Sardana et al. 2024, arXiv:2401.00448).

    Args:
        inference_tokens: Tokens that the model reads and writes in its life.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.training_and_inference(1e12)
        >>> cost(jl.laws["chinchilla"].inputs(params=1e9, tokens=2e10))
        2.12e+21
    """
    return Partial(_training_and_inference, inference_tokens=inference_tokens)


def _training_and_inference(inputs: Any, inference_tokens: Any) -> Scalar:
    return training(inputs) + 2 * _active(inputs) * inference_tokens


def training_in_bits(inference_tokens: Any = 0.0) -> Partial:
    """FLOP of training in few bits, and of serving: those of 16 bits that take as long (Kumar et al. 2024).

    The time of a product is taken to be proportional to its bits: 6/16 * params * tokens * bits (arXiv:2411.04330,
    where weights, activations, keys and values have the same bits). Where these differ, it is their mean that counts,
    so that each bit saved pays; hardware that computes in the largest of them saves nothing by one alone.

    Args:
        inference_tokens: See [`training_and_inference`][jaxlaws.costs.training_and_inference]; they are served in the
            same bits.

    Example:
        >>> import jaxlaws as jl
        >>> bits = {"weight_bits": 4, "activation_bits": 8, "kv_bits": 12}
        >>> jl.costs.training_in_bits()(jl.laws["precision"].inputs(params=1e9, tokens=2e10, **bits))
        6e+19
    """
    return Partial(_training_in_bits, inference_tokens=inference_tokens)


def _training_in_bits(inputs: Any, inference_tokens: Any) -> Scalar:
    kinds = [_named(inputs, name) for name in ("weight_bits", "activation_bits", "kv_bits")]
    return _training_and_inference(inputs, inference_tokens) * (sum(kinds) / (16 * len(kinds)))


def vocabulary(width: Any = None) -> Partial:
    """FLOP of training with embeddings: 6 for each token and each parameter (Tao et al. 2024, arXiv:2407.13623).

    A larger vocabulary makes fewer tokens of the same characters and adds vocab_size * width parameters. The tokens are
    those of the publication's runs, whose FLOP these are. The law `vocabulary` counts about three times as many in its
    loss.

    Args:
        width: Width of the embeddings, for a law without such an input.

    Example:
        >>> import jaxlaws as jl
        >>> sizes = {"non_vocab_params": 7e9, "vocab_size": 6e4, "width": 4096, "characters": 1e12}
        >>> print(f"{jl.costs.vocabulary()(jl.laws['vocabulary'].inputs(**sizes)):.4g}")
        1.039e+22
    """
    return Partial(_vocabulary, width=width)


def _vocabulary(inputs: Any, width: Any) -> Scalar:
    from jaxlaws.catalogue.vocabulary import tokens

    words = _named(inputs, "vocab_size")
    embeddings = words * (_named(inputs, "width") if width is None else width)
    return 6 * (_params(inputs) + embeddings) * tokens(words, _named(inputs, "characters"))


def weight_bytes(inputs: Any) -> Scalar:
    """Bytes of the weights of a model, at the bits of each weight.

    Example:
        >>> import jaxlaws as jl
        >>> jl.costs.weight_bytes(jl.laws["quantization"].inputs(params=7e9, tokens=1e12, weight_bits=4))
        3500000000.0
    """
    return _params(inputs) * _named(inputs, "weight_bits") / 8


def distillation(teacher_params: Any, teacher_tokens: Any = 0.0, inference_tokens: Any = 0.0) -> Partial:
    """FLOP of distillation: a student is trained on what a teacher says of each token (Busbridge et al. 2025).

    That is 6 * params * tokens for the student and 2 * teacher_params * tokens for the teacher (arXiv:2502.08606, which
    adds what attention costs).

    Args:
        teacher_params: Parameters of the teacher; 0 if what it says is at hand already.
        teacher_tokens: Tokens that the teacher has still to be trained on, with 6 * teacher_params * teacher_tokens.
        inference_tokens: Tokens that the student serves; see
            [`training_and_inference`][jaxlaws.costs.training_and_inference].

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.distillation(teacher_params=7e9, teacher_tokens=1e11)
        >>> print(f"{cost(jl.laws['distillation'].inputs(params=1e9, tokens=2e10, teacher_loss=2.2)):.2e}")
        4.60e+21
    """
    numbers = {"teacher_params": teacher_params, "teacher_tokens": teacher_tokens, "inference_tokens": inference_tokens}
    return Partial(_distillation, **numbers)


def _distillation(inputs: Any, teacher_params: Any, teacher_tokens: Any, inference_tokens: Any) -> Scalar:
    teacher = teacher_params * (2 * _tokens(inputs) + 6 * teacher_tokens)
    return _training_and_inference(inputs, inference_tokens) + teacher


def moe_total(expert_share: Any = 2 / 3) -> Partial:
    """Parameters of a mixture of experts, that is, its memory.

    Args:
        expert_share: The part of the dense model that there is once for each expert: 2/3 where every feed-forward
            layer of the usual width has experts. A law whose params are those of all experts, as `sparsity` and
            `fine_grained_moe`, needs none.

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
        experts_per_token: Experts that a token is sent to; where the law has an active_share, that says it.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.moe_active(expert_share=0.5, experts_per_token=2)
        >>> cost(jl.laws["moe"].inputs(dense_parameter_count=1e9, num_experts=8))
        1500000000.0
    """
    return Partial(_moe, expert_share=expert_share, experts_per_token=experts_per_token)


def _moe(inputs: Any, expert_share: Any, experts_per_token: Any) -> Scalar:
    if hasattr(inputs, "active_share") or hasattr(inputs, "granularity"):  # params are those of all experts
        return _params(inputs) if experts_per_token is None else _active(inputs)
    experts = _named(inputs, "num_experts")
    experts = experts if experts_per_token is None else experts_per_token
    return _params(inputs) * (1 - expert_share + expert_share * experts)


def fine_grained(
    experts: Any, routing_flop: Any = 14.0, inference_tokens: Any = 0.0, width_per_layer: Any = 64
) -> Partial:
    """FLOP of training a mixture of fine-grained experts, and of serving it (Krajewski et al. 2024, arXiv:2402.07871).

    The parameters that a token meets do not depend on the granularity: 4 * width**2 of attention in each layer, and 8 *
    width**2 of as many experts as make up one feed-forward layer. All parameters are 4 + 8 * experts times width**2.
    To route a token takes routing_flop * width * experts * granularity in each layer, which limits how fine experts
    should be. The width follows from the parameters, as it is width_per_layer times the number of layers.

    Args:
        experts: How many times the parameters of the feed-forward layers there are, at any granularity: 64 in all runs
            of the source, and 1 for a dense model.
        routing_flop: FLOP of training the router, for each output and each entry of the vector it reads.
        inference_tokens: See [`training_and_inference`][jaxlaws.costs.training_and_inference]; serving a token takes a
            third of training on it.
        width_per_layer: The width of the model over its number of layers.

    Example:
        >>> import jaxlaws as jl
        >>> cost = jl.costs.fine_grained(experts=64)
        >>> print(f"{cost(jl.laws['fine_grained_moe'].inputs(params=4.3e9, tokens=4.37e9, granularity=8)):.3g}")
        2.94e+18
    """
    numbers = {"experts": experts, "routing_flop": routing_flop}
    numbers |= {"inference_tokens": inference_tokens, "width_per_layer": width_per_layer}
    return Partial(_fine_grained, **numbers)


def _fine_grained(inputs: Any, experts: Any, routing_flop: Any, inference_tokens: Any, width_per_layer: Any) -> Scalar:
    granularity = _named(inputs, "granularity")
    size = _params(inputs) / (4 + 8 * experts)  # width**2 * layers
    width = (width_per_layer * size) ** (1 / 3)
    per_token = 72 * size + routing_flop * experts * granularity * size / width
    return per_token * (_tokens(inputs) + inference_tokens / 3)


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
    return bytes_per_param * _params(inputs) + bytes_per_stream * _named(inputs, "parallel_size")


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
    compute = 2 * _params(inputs) * _named(inputs, "parallel_size") / flop_per_second
    return _stream_memory(inputs, **memory) / bytes_per_second + compute


def _params(inputs: Any) -> Any:
    """The number of parameters, whatever the law calls it."""
    names = [v.name for v in variables(type(inputs)) if v.unit == "parameters"]
    if not names:
        raise TypeError(f"this cost needs an input in parameters, which {_law(inputs)} does not have; give cost=")
    return getattr(inputs, names[0])


def _active(inputs: Any) -> Any:
    """The number of parameters that a token meets."""
    if hasattr(inputs, "granularity"):
        about = f"this cost does not know how many params of {_law(inputs)} a token meets"
        raise TypeError(f"{about}; give cost=jl.costs.fine_grained(experts=64)")
    params = _params(inputs)
    return params * inputs.active_share if hasattr(inputs, "active_share") else params


def _tokens(inputs: Any) -> Any:
    return _named(inputs, "tokens")


def _named(inputs: Any, name: str) -> Any:
    found = [v.name for v in variables(type(inputs)) if name in (v.name, *v.aliases)]
    if not found:
        raise TypeError(f"this cost needs an input called {name}, which {_law(inputs)} does not have; give cost=")
    return getattr(inputs, found[0])


def _law(inputs: Any) -> str:
    return type(inputs).__module__.rpartition(".")[2]
