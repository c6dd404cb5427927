"""A Chronos-Bolt checkpoint as an ONNX graph, written operator by operator.

The graph computes what `ChronosBoltModelForForecasting` of chronos-forecasting computes, for
inference alone, and leaves out what needs no computing there:

- the decoder reads one constant token: its first self-attention is a constant, later ones are one
  matrix, and cross-attention needs no keys or values of the encoder's tokens, since a query can be
  carried to them instead;
- the weights of a layer norm are part of the matrix behind it, and queries, keys and values are one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from openanomaly.errors import ConfigError

F32 = NDArray[np.float32]
OPSET = 20  # what onnxruntime from 1.17 on runs
_IR_VERSION = 9
_MASKED = np.float32(-1e30)


@dataclass(frozen=True, slots=True)
class BoltConfig:
    """What the graph depends on, from the checkpoint's `config.json`."""

    d_model: int
    d_kv: int
    heads: int
    layers: int
    decoder_layers: int
    buckets: int
    max_distance: int
    epsilon: float
    activation: str
    is_gated: bool
    has_reg_token: bool
    start_token: int
    context: int
    patch: int
    horizon: int
    levels: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "BoltConfig":
        """
        Raises:
            ConfigError: not a Chronos-Bolt checkpoint, or one of a kind that is not known here.
        """
        if "ChronosBoltModelForForecasting" not in config.get("architectures", ()):
            raise ConfigError(f"only Chronos-Bolt can be exported, found {config.get('architectures')}")
        chronos = config["chronos_config"]
        if chronos["input_patch_size"] != chronos["input_patch_stride"]:
            raise ConfigError("patches that overlap cannot be exported")
        activation = config.get("dense_act_fn", "relu")
        if activation not in _ACTIVATIONS:
            raise ConfigError(
                f"activation {activation!r} cannot be exported; known are {', '.join(_ACTIVATIONS)}"
            )
        return cls(
            d_model=config["d_model"],
            d_kv=config["d_kv"],
            heads=config["num_heads"],
            layers=config["num_layers"],
            decoder_layers=config.get("num_decoder_layers") or config["num_layers"],
            buckets=config.get("relative_attention_num_buckets", 32),
            max_distance=config.get("relative_attention_max_distance", 128),
            epsilon=config.get("layer_norm_epsilon", 1e-6),
            activation=activation,
            is_gated=config.get("is_gated_act", False),
            has_reg_token=chronos.get("use_reg_token", False),
            start_token=config.get("decoder_start_token_id", 0),
            context=chronos["context_length"],
            patch=chronos["input_patch_size"],
            horizon=chronos["prediction_length"],
            levels=tuple(chronos["quantiles"]),
        )


def build(config: BoltConfig, weights: Mapping[str, F32], name: str) -> onnx.ModelProto:
    """The graph: `context` (B, T) float32, T a multiple of the patch, NaN for a missing step, to
    `quantiles` (B, Q, H) float32, in the units of the context."""
    g = _Graph(weights)
    _Bolt(config, g).write()
    graph = helper.make_graph(
        g.nodes,
        name,
        [helper.make_tensor_value_info("context", TensorProto.FLOAT, ["B", "T"])],
        [
            helper.make_tensor_value_info(
                "quantiles", TensorProto.FLOAT, ["B", len(config.levels), config.horizon]
            )
        ],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    about = {
        "name": name,
        "context": config.context,
        "patch": config.patch,
        "horizon": config.horizon,
        "levels": ",".join(map(str, config.levels)),
    }
    helper.set_model_props(model, {f"openanomaly.{key}": str(value) for key, value in about.items()})
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants as they are written; values are named by what they are."""

    def __init__(self, weights: Mapping[str, F32]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._weights = weights
        self._used = 0

    def weight(self, name: str) -> F32:
        """
        Raises:
            ConfigError: the checkpoint has none of this name.
        """
        try:
            return np.asarray(self._weights[name], np.float32)
        except KeyError:
            raise ConfigError(f"the checkpoint has no weights {name}") from None

    def linear(self, name: str) -> F32:
        """Weights of a linear layer, as they stand on the right of a product."""
        return self.weight(f"{name}.weight").T

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = self._name("c")
        self.constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def op(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        out = to or self._name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def product(self, x: str, matrix: F32) -> str:
        return self.op("MatMul", x, self.constant(matrix))

    def plus(self, x: str, value: F32) -> str:
        return self.op("Add", x, self.constant(value))

    def _name(self, stem: str) -> str:
        self._used += 1
        return f"{stem}_{self._used}"


class _Bolt:
    def __init__(self, config: BoltConfig, graph: _Graph) -> None:
        self.c = config
        self.g = graph

    def write(self) -> None:
        patches, seen, loc, scale = self._patches()
        tokens = self._residual_block(patches, "input_patch_embedding")
        if self.c.has_reg_token:
            tokens, seen = self._with_reg_token(tokens, seen)
        mask = self._mask(seen)
        encoded = self._encoder(tokens, mask)
        decoded = self._decoder(encoded, mask)
        flat = self._residual_block(decoded, "output_patch_embedding")
        levels = len(self.c.levels)
        out = self.g.op("Reshape", flat, self.g.ints(-1, levels, self.c.horizon))
        three = self.g.ints(-1, 1, 1)
        scaled = self.g.op("Mul", out, self.g.op("Reshape", scale, three))
        self.g.op("Add", scaled, self.g.op("Reshape", loc, three), to="quantiles")

    # -- in ----------------------------------------------------------------------------------------

    def _patches(self) -> tuple[str, str, str, str]:
        """(B, P, 2 x patch) values and what is known of them, (B, P) patches that are, loc, scale (B, 1)."""
        g, last = self.g, self.g.ints(-1)
        missing = g.op("IsNaN", "context")
        zero = g.constant(0.0)
        known = g.op("Where", missing, zero, g.constant(1.0))
        n = g.op("ReduceSum", known, last, keepdims=1)
        least = g.op("Max", n, g.constant(1.0))
        total = g.op("ReduceSum", g.op("Where", missing, zero, "context"), last, keepdims=1)
        loc = g.op("Div", total, least)
        centred = g.op("Where", missing, zero, g.op("Sub", "context", loc))
        square = g.op("ReduceSum", g.op("Mul", centred, centred), last, keepdims=1)
        spread = g.op("Sqrt", g.op("Div", square, least))
        none = g.op("Equal", n, zero)
        spread = g.op("Where", none, g.constant(1.0), spread)
        scale = g.op("Where", g.op("Equal", spread, zero), g.constant(1e-5), spread)
        shape = g.ints(0, -1, self.c.patch)
        z = g.op("Reshape", g.op("Div", centred, scale), shape)
        seen = g.op("Reshape", known, shape)
        both = g.op("Concat", z, seen, axis=2)
        return both, g.op("ReduceMax", seen, last, keepdims=0), loc, scale

    def _with_reg_token(self, tokens: str, seen: str) -> tuple[str, str]:
        g = self.g
        rows = g.op("Shape", tokens, start=0, end=1)
        size = g.op("Concat", rows, g.ints(1, self.c.d_model), axis=0)
        reg = g.op("Expand", g.constant(g.weight("shared.weight")[1][None, None]), size)
        one = g.op("Expand", g.constant([[1.0]]), g.op("Concat", rows, g.ints(1), axis=0))
        return g.op("Concat", tokens, reg, axis=1), g.op("Concat", seen, one, axis=1)

    def _mask(self, seen: str) -> str:
        """(B, 1, 1, S) what is added to scores of attention: nothing, or enough to drown them."""
        g = self.g
        lost = g.op("Mul", g.op("Sub", g.constant(1.0), seen), g.constant(_MASKED))
        return g.op("Unsqueeze", lost, g.ints(1, 2))

    # -- encoder -----------------------------------------------------------------------------------

    def _encoder(self, x: str, mask: str) -> str:
        g = self.g
        bias = g.op("Add", self._position_bias(x), mask)
        for layer in range(self.c.layers):
            at = f"encoder.block.{layer}.layer"
            x = g.op("Add", x, self._self_attention(x, f"{at}.0", bias))
            x = g.op("Add", x, self._feed_forward(x, f"{at}.1"))
        return self._norm(x, g.weight("encoder.final_layer_norm.weight"))

    def _position_bias(self, x: str) -> str:
        """(1, heads, S, S): it depends on distances alone, so any corner of the largest one is right."""
        g = self.g
        most = -(-self.c.context // self.c.patch) + self.c.has_reg_token
        name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        distance = np.arange(most)[None] - np.arange(most)[:, None]
        table = g.weight(name)[_buckets(distance, self.c.buckets, self.c.max_distance)]
        largest = g.constant(table.transpose(2, 0, 1)[None])
        size = g.op("Shape", x, start=1, end=2)
        two = g.op("Concat", size, size, axis=0)
        return g.op("Slice", largest, g.ints(0, 0), two, g.ints(2, 3))

    def _self_attention(self, x: str, at: str, bias: str) -> str:
        g, heads, d = self.g, self.c.heads, self.c.d_kv
        name = f"{at}.SelfAttention"
        qkv = np.concatenate([g.linear(f"{name}.{part}") for part in "qkv"], axis=1)
        both = self._normed_product(x, g.weight(f"{at}.layer_norm.weight"), qkv)
        parts = self.g.op("Reshape", both, g.ints(0, 0, 3, heads, d))
        parts = g.op("Transpose", parts, perm=[2, 0, 3, 1, 4])  # 3, B, heads, S, d
        q, k, v = (g.op("Gather", parts, g.constant(i, np.int64), axis=0) for i in range(3))
        score = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        weight = g.op("Softmax", g.op("Add", score, bias), axis=-1)
        seen = g.op("Transpose", g.op("MatMul", weight, v), perm=[0, 2, 1, 3])
        return g.product(g.op("Reshape", seen, g.ints(0, 0, heads * d)), g.linear(f"{name}.o"))

    # -- decoder -----------------------------------------------------------------------------------

    def _decoder(self, encoded: str, mask: str) -> str:
        g = self.g
        bias = g.op("Squeeze", mask, g.ints(1))  # (B, 1, S)
        tokens = g.op("Transpose", encoded, perm=[0, 2, 1])
        start = g.weight("shared.weight")[self.c.start_token][None]
        x = g.constant(start + self._alone_constant(start))
        for layer in range(self.c.decoder_layers):
            at = f"decoder.block.{layer}.layer"
            if layer:
                scale = g.weight(f"{at}.0.layer_norm.weight")
                x = g.op("Add", x, self._normed_product(x, scale, self._alone(layer)))
            x = g.op("Add", x, self._cross_attention(x, encoded, tokens, f"{at}.1", bias))
            x = g.op("Add", x, self._feed_forward(x, f"{at}.2"))
        return self._norm(x, g.weight("decoder.final_layer_norm.weight"))

    def _alone(self, layer: int) -> F32:
        """Self-attention of a single token: all weight is on itself."""
        name = f"decoder.block.{layer}.layer.0.SelfAttention"
        return self.g.linear(f"{name}.v") @ self.g.linear(f"{name}.o")

    def _alone_constant(self, start: F32) -> F32:
        scale = self.g.weight("decoder.block.0.layer.0.layer_norm.weight")
        normed = start / np.sqrt((start**2).mean(axis=-1, keepdims=True) + self.c.epsilon) * scale
        out: F32 = normed @ self._alone(0)
        return out

    def _cross_attention(self, x: str, encoded: str, tokens: str, at: str, bias: str) -> str:
        """(B, d_model) for queries `x` (B or 1, d_model)."""
        g, heads, d, width = self.g, self.c.heads, self.c.d_kv, self.c.d_model
        name = f"{at}.EncDecAttention"
        q, k, v = (g.linear(f"{name}.{part}").reshape(width, heads, d) for part in "qkv")
        # A query is carried through the keys' matrix once, not every token through it.
        carried = np.einsum("mhd,nhd->mhn", q, k).reshape(width, heads * width)
        query = self._normed_product(x, g.weight(f"{at}.layer_norm.weight"), carried)
        score = g.op("MatMul", g.op("Reshape", query, g.ints(-1, heads, width)), tokens)
        weight = g.op("Softmax", g.op("Add", score, bias), axis=-1)  # (B, heads, S)
        seen = g.op("MatMul", weight, encoded)  # (B, heads, d_model)
        o = g.linear(f"{name}.o").reshape(heads, d, width)
        out = np.einsum("mhd,hdn->hmn", v, o).reshape(heads * width, width)
        return g.product(g.op("Reshape", seen, g.ints(-1, heads * width)), out)

    # -- parts -------------------------------------------------------------------------------------

    def _feed_forward(self, x: str, at: str) -> str:
        g, name, scale = self.g, f"{at}.DenseReluDense", self.g.weight(f"{at}.layer_norm.weight")
        if self.c.is_gated:
            gate = _ACTIVATIONS[self.c.activation](
                g, self._normed_product(x, scale, g.linear(f"{name}.wi_0"))
            )
            inner = g.op("Mul", gate, self._normed_product(x, scale, g.linear(f"{name}.wi_1")))
        else:
            inner = _ACTIVATIONS[self.c.activation](g, self._normed_product(x, scale, g.linear(f"{name}.wi")))
        return g.product(inner, g.linear(f"{name}.wo"))

    def _normed_product(self, x: str, scale: F32, matrix: F32) -> str:
        return self.g.product(self._norm(x), scale[:, None] * matrix)

    def _norm(self, x: str, scale: F32 | None = None) -> str:
        """Root mean square norm, in the form that onnxruntime knows as one operator."""
        g = self.g
        mean = g.op("ReduceMean", g.op("Pow", x, g.constant(2.0)), g.ints(-1), keepdims=1)
        root = g.op("Sqrt", g.op("Add", mean, g.constant(self.c.epsilon)))
        weight = np.ones(self.c.d_model, np.float32) if scale is None else scale
        return g.op("Mul", g.op("Div", x, root), g.constant(weight))

    def _residual_block(self, x: str, name: str) -> str:
        g = self.g
        inner = g.plus(g.product(x, g.linear(f"{name}.hidden_layer")), g.weight(f"{name}.hidden_layer.bias"))
        out = g.product(_ACTIVATIONS[self.c.activation](g, inner), g.linear(f"{name}.output_layer"))
        rest = g.product(x, g.linear(f"{name}.residual_layer"))
        bias = g.weight(f"{name}.output_layer.bias") + g.weight(f"{name}.residual_layer.bias")
        return g.plus(g.op("Add", out, rest), bias)


def _buckets(distance: NDArray[np.int64], buckets: int, most: int) -> NDArray[np.int64]:
    """T5's bucket of each distance, in both directions: exact ones up to a quarter, then logarithmic."""
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    with np.errstate(divide="ignore"):
        steps = np.log(far.astype(np.float32) / exact) / np.log(most / exact) * (half - exact)
    late = np.minimum(exact + np.where(far < exact, 0, steps).astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(far < exact, far, late)


def _relu(g: _Graph, x: str) -> str:
    return g.op("Relu", x)


def _gelu_new(g: _Graph, x: str) -> str:
    return g.op("Gelu", x, approximate="tanh")


def _gelu(g: _Graph, x: str) -> str:
    return g.op("Gelu", x)


_ACTIVATIONS = {"relu": _relu, "gelu": _gelu, "gelu_new": _gelu_new}

__all__: Sequence[str] = ("OPSET", "BoltConfig", "build")
