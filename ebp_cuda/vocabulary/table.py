"""The table itself: every operation with what it computes, its attributes and its parameters.

Per spatial axis: `kernel`, `stride`, `padding`, `padding_end` and `dilation` are tuples with one entry per spatial
axis; `padding` is the padding before the first element of an axis and `padding_end` the padding behind the last.
"""

from __future__ import annotations

from typing import Any

from ..errors import ModelError, nearest_names
from .signature import (
    BOOL,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    PAIRS,
    Attribute,
    Parameter,
    Signature,
    one_of,
    optional,
    tuple_of,
)

SIGNATURES: dict[str, Signature] = {}
"""By operation. Filled below; `rules.register_operation` adds a user's own."""


def signature_of(op: str) -> Signature | None:
    """The table's entry of an operation; None for a user's operation ("namespace::name") that has declared nothing.

    Raises:
        ModelError: for a name that is neither.
    """
    if op not in SIGNATURES and "::" not in op:
        raise ModelError(f"no operation '{op}'{nearest_names(op, SIGNATURES)}")
    return SIGNATURES.get(op)


def operations(*names: str) -> frozenset[str]:
    """A set of operations by name. Raises ModelError where one of them does not exist."""
    for name in names:
        signature_of(name)
    return frozenset(names)


def _enter(op: str, summary: str, *parts: Attribute | Parameter, inputs: Any = 1, outputs: Any = 1) -> None:
    """A line of the table. inputs and outputs: a number, or the fewest and the most."""
    attributes = tuple(part for part in parts if isinstance(part, Attribute))
    parameters = tuple(part for part in parts if isinstance(part, Parameter))
    counts = [(n, n) if isinstance(n, int) else n for n in (inputs, outputs)]
    SIGNATURES[op] = Signature(op, summary, attributes, parameters, *counts)


_TWO_OR_MORE = (2, None)
_AXIS, _AXES, _EPS = Attribute("axis", INT), Attribute("axes", INTS), Attribute("eps", FLOAT)
_GEOMETRY = tuple(Attribute(name, INTS) for name in ("stride", "padding", "padding_end", "dilation"))
_GROUPS = Attribute("groups", INT, 1)
_BIAS = Parameter("bias", ("O",), required=False)
_PLANES = (
    Attribute("kernel", optional(INTS)),
    *(Attribute(a.name, optional(INTS), None, needed_with="kernel") for a in _GEOMETRY),
    Attribute("ceil_mode", BOOL, False),
)
_SIZE = Attribute("size", optional(INTS), None)

# Layers with weights
_weight = Parameter("weight", ("O", "I/groups", "*kernel"))
_enter("conv", "convolution", *_GEOMETRY, _GROUPS, _weight, _BIAS)
_extra = Attribute("output_padding", optional(INTS), None)
_weight = Parameter("weight", ("I", "O/groups", "*kernel"))
_enter("conv_transpose", "its transpose: W^T x + bias", *_GEOMETRY, _GROUPS, _extra, _weight, _BIAS)
_enter("linear", "W x + bias on the last axis", Parameter("weight", ("O", "I")), _BIAS)

# Pooling and sums
_enter(
    "max_pool",
    "largest of a window (kernel None: of the plane); a second output is its row-major place in the plane",
    *_PLANES,
    outputs=(1, 2),
)
_enter(
    "avg_pool",
    "mean of a window (kernel None: of the plane), which counts the padding that it covers or not; a last window "
    "outside falls away or is refused",
    *_PLANES,
    Attribute("count_include_pad", BOOL, True),
    Attribute("drops_outside", BOOL, True),
)
_outputs = Attribute("size", tuple_of(optional(INT)))
for _name, _what in (("adaptive_max_pool", "largest"), ("adaptive_avg_pool", "mean")):
    _enter(_name, f"{_what} of windows that give `size` outputs per axis; None: as many as there are inputs", _outputs)
_enter("mean", "mean over axes", _AXES, Attribute("keepdims", BOOL))
_enter(
    "reduce",
    "coefficient times the sum, mean, sum of |x| or of x^2 over axes, which go",
    Attribute("kind", one_of("sum", "mean", "asum", "sumsq")),
    _AXES,
    Attribute("coefficient", FLOAT, 1.0),
)

_enter("logsumexp", "log of the sum of e^x over axes, which go", _AXES)
_enter("product", "product over axes, which go", _AXES)
_enter("weighted_sum", "W x along an axis", _AXIS, Parameter("weight", ("O", "I")))

# Functions of one element
_scale, _shift = Attribute("scale", FLOAT, 1.0), Attribute("shift", FLOAT, 0.0)
for _name, _what in {
    "relu": "max(x, 0)",
    "abs": "|x|",
    "sqrt": "root of x",
    "sigmoid": "1 / (1 + e^-x)",
    "tanh": "tanh x",
    "erf": "error function",
    "softplus": "log(1 + e^x)",
    "hard_swish": "x * min(max(x / 6 + 1/2, 0), 1)",
    "softsign": "x / (1 + |x|)",
    "sin": "sine",
    "cos": "cosine",
    "tan": "tangent",
    "sinh": "hyperbolic sine",
    "cosh": "hyperbolic cosine",
    "asin": "arcsine",
    "acos": "arccosine",
    "atan": "arctangent",
    "asinh": "inverse hyperbolic sine",
    "acosh": "inverse hyperbolic cosine",
    "atanh": "inverse hyperbolic tangent",
    "sign": "-1, 0 or 1",
    "floor": "the next integer below",
    "ceil": "the next integer above",
    "round": "the nearest integer, of two the even one",
    "trunc": "the next integer towards 0",
}.items():
    _enter(_name, _what)
_enter("leaky_relu", "x where x > 0, slope * x elsewhere", Attribute("slope", FLOAT))
_enter("prelu", "the same, with a slope per channel or one", Parameter("weight", ("C",)))
_enter("elu", "scale times x where x > 0, alpha * (e^x - 1) elsewhere", Attribute("alpha", FLOAT),
       Attribute("scale", FLOAT, 1.0))  # fmt: skip
_enter("clip", "min(max(x, min), max)", Attribute("min", FLOAT), Attribute("max", FLOAT))
_enter("silu", "x * sigmoid(beta * x)", Attribute("beta", FLOAT, 1.0))
_enter("hard_sigmoid", "min(max(alpha * x + beta, 0), 1)", Attribute("alpha", FLOAT), Attribute("beta", FLOAT))
_enter("gelu", "x * Phi(x), or its approximation by tanh", Attribute("tanh", BOOL, False))
_enter("threshold", "1 where x > threshold, 0 elsewhere", Attribute("threshold", FLOAT))
_enter("exp", "e^(scale * x + shift)", _scale, _shift)
_enter("log", "factor * log(scale * x + shift)", _scale, _shift, Attribute("factor", FLOAT, 1.0))
_enter("power", "(shift + scale * x) ** power", Attribute("power", FLOAT), _scale, _shift)

_enter("powers", "x ** exponent, element by element", Parameter("exponent", ("*any",)))
_enter("at_least", "max(x, least), element by element", Parameter("least", ("*any",)))
_enter("thresholded_relu", "x where x > alpha, 0 elsewhere", Attribute("alpha", FLOAT))
_enter("shrink", "x less the bias where x > lambd, plus it where x < -lambd, 0 between", Attribute("lambd", FLOAT),
       Attribute("bias", FLOAT))  # fmt: skip

# Norms and affine maps
_enter("softmax", "e^x over its sum along an axis", _AXIS)
_enter("log_softmax", "its logarithm", _AXIS)
_enter("unit_norm", "x over its norm along an axis, 0 where that is 0", _AXIS, Attribute("order", INT))
_enter(
    "lrn",
    "x / (k + alpha / n * sum of x^2) ** beta over n neighbors, across channels or within the plane",
    Attribute("size", INT),
    *(Attribute(name, FLOAT) for name in ("alpha", "beta", "k")),
    Attribute("region", one_of("across", "within"), "across"),
)
_enter(
    "mvn", "x less its mean, over its deviation + eps (None: the mean only)", _AXES, Attribute("eps", optional(FLOAT))
)
_enter(
    "standardize",
    "x less its mean, over sqrt(variance + eps); with groups, each group of channels for itself",
    _AXES,
    _EPS,
    Attribute("groups", optional(INT), None),
)
_enter("normalize", "scale * x / sqrt(sum of x^2 + eps)", _AXES, _EPS, Parameter("scale", ("*any",)))
_C = ("C",)
_enter(
    "batch_norm",
    "weight * (x - mean) / sqrt(var + eps) + bias, per channel",
    _EPS,
    *(Parameter("mean", _C), Parameter("var", _C), Parameter("weight", _C, False), Parameter("bias", _C, False)),
)
_enter(
    "affine",
    "x * scale + shift, broadcast against x",
    *(Parameter("scale", ("*any",), False), Parameter("shift", ("*any",), False)),
)
_enter("identity", "x: dropout, cast, and what else changes nothing at inference")

# Several activations
_coefficients = Attribute("coefficients", optional(FLOATS), None)
_enter("sum", "sum, each input times its coefficient (None: 1)", _coefficients, inputs=_TWO_OR_MORE)
_enter("max", "largest", inputs=_TWO_OR_MORE)
_enter("mul", "product of factors that broadcast", inputs=_TWO_OR_MORE)
_enter("concat", "one behind the other along an axis", _AXIS, inputs=_TWO_OR_MORE)

_enter(
    "compare",
    "1 where the comparison with the second input or the bound holds, 0 elsewhere",
    Attribute("kind", one_of("equal", "greater", "greater_equal", "less", "less_equal")),
    Parameter("bound", ("*any",), required=False),
    inputs=(1, 2),
)
_enter(
    "where",
    "first where the mask is not 0, second elsewhere; inputs for those that are no parameters, in order",
    *(Parameter(name, ("*any",), required=False) for name in ("mask", "first", "second")),
    inputs=(1, 3),
)

# Moves
_corners = (Attribute("starts", INTS), Attribute("ends", INTS), Attribute("steps", optional(INTS), None))
_enter("slice", "from start to end of axes, every step-th", _AXES, *_corners)
_enter("split", "parts of `sizes` along an axis", _AXIS, Attribute("sizes", INTS), outputs=(1, None))
_enter("flatten", "axes before `axis` stay, the others become one", _AXIS)
_enter("reshape", "another shape: 0 copies an axis of the input, -1 is inferred", Attribute("shape", INTS))
_enter("squeeze", "axes of length 1 go", _AXES)
_enter("unsqueeze", "axes of the output that have length 1", _AXES)
_enter("transpose", "axes in another order", Attribute("perm", INTS))
_enter("pad", "a constant around", Attribute("pads", PAIRS), Attribute("value", FLOAT, 0.0))
_enter(
    "resize",
    "interpolated to a scale, a size, Caffe's zoom and shrink, or the size of a second input",
    Attribute("mode", one_of("nearest", "linear")),
    Attribute("align_corners", BOOL, False),
    Attribute("scale", optional(FLOATS), None),
    _SIZE,
    *(Attribute("zoom", optional(INT), None), Attribute("shrink", optional(INT), None, needed_with="zoom")),
    inputs=(1, 2),
)
_enter("select", "entries of an axis, by their numbers", _AXIS, Attribute("indices", INTS))
_enter("tile", "repeated along every axis", Attribute("repeats", INTS))
_enter("expand", "repeated to the shape of the second input", inputs=2)
_enter("crop", "the second input's shape, from `offsets` on, of `axis` and those behind it", _AXIS,
       Attribute("offsets", INTS), inputs=2)  # fmt: skip
_rows = Parameter("weight", ("rows", "D"))
_enter("embed", "rows of the weight by number, + bias", _rows, Parameter("bias", ("D",), required=False))
_enter(
    "arg_max",
    "the k largest along an axis (None: of an image), their places or both",
    Attribute("axis", optional(INT)),
    Attribute("k", INT),
    Attribute("gives", one_of("indices", "values", "both")),
)
_enter(
    "unpool",
    "x at the places that the second input names, of planes of `size`, or scale * n - less; 0 elsewhere",
    _SIZE,
    *(Attribute("scale", optional(INTS), None), Attribute("less", optional(INTS), None, needed_with="scale")),
    inputs=2,
)
