"""Bodies of the functions that need more than a few operators (see functions.py)."""

from __future__ import annotations

_REDUCERS = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}

_NORM = """
        e = Constant <value_float: float = @eps> ()"""

# places of the k largest along one axis; of equal numbers Caffe takes the last, ONNX the first, hence the reversal
_MAXIMA = """
        last = Constant <value = int64[1] {-1}> ()
        beyond = Constant <value = int64[1] {-9223372036854775807}> ()
        backwards = Slice(flat, last, beyond, axis, last)
        values, mirrored = TopK <axis: int = @axis> (backwards, k)
        shape = Shape(flat)
        length = Gather <axis: int = 0> (shape, axis)
        end = Add(length, last)
        places = Sub(end, mirrored)
        indices = Cast <to: int = 1> (places)"""


def _arg_max(flat: bool, gives: str) -> str:
    """ArgMax over all axes but the batch (with the wanted shape as an input), or along one."""
    name = f"ArgMax{'' if flat else 'Along'}{gives.capitalize()}"
    inputs, start = ("x, axis, k, wanted", "Flatten <axis: int = 1> (x)") if flat else ("x, axis, k", "Identity(x)")
    lines = f"{name} <axis, top_k> ({inputs}) => (y) {{\n        flat = {start}{_MAXIMA}\n"
    if not flat:
        return f"{lines}        y = Identity({gives})\n}}"
    if gives == "indices":
        return f"{lines}        y = Reshape(indices, wanted)\n}}"
    return f"""{lines}
        first = Reshape(indices, wanted)
        second = Reshape(values, wanted)
        y = Concat <axis: int = 1> (first, second)
}}"""


def _unpool(name: str, attrs: str, inputs: str, plane: str) -> str:
    """Numbers go to the places that a mask names, in planes of zeros."""
    return f"""{name} <{attrs}> (x, mask, {inputs}) => (y) {{
        whole = Constant <value = int64[1] {{-1}}> ()
        images = Shape <start: int = 0, end: int = 2> (x)
        small = Shape <start: int = 2> (x)
        {plane}
        size = ReduceProd <keepdims: int = 1> (plane)
        flat = Concat <axis: int = 0> (images, whole)
        large = Concat <axis: int = 0> (images, size)
        wanted = Concat <axis: int = 0> (images, plane)
        zeros = ConstantOfShape <value: tensor = float[1] {{0}}> (large)
        numbers = Cast <to: int = 7> (mask)
        places = Reshape(numbers, flat)
        updates = Reshape(x, flat)
        filled = ScatterElements <axis: int = 2> (zeros, places, updates)
        y = Reshape(filled, wanted)
    }}"""


def _interp(name: str, attrs: str, inputs: str, plane: str) -> str:
    """Bilinear interpolation to a plane, corner pixels on corner pixels."""
    return f"""{name} {attrs} ({inputs}) => (y) {{
        images = Shape <start: int = 0, end: int = 2> (x)
        {plane}
        wanted = Concat <axis: int = 0> (images, plane)
        y = Resize <mode: string = "linear", coordinate_transformation_mode: string = "align_corners">
            (x, none, none, wanted)
    }}"""


BODIES = {
    "Exp": """Exp <scale, shift> (x) => (y) {
        factor = Constant <value_float: float = @scale> ()
        offset = Constant <value_float: float = @shift> ()
        scaled = Mul(x, factor)
        shifted = Add(scaled, offset)
        y = Exp(shifted)
    }""",
    "Log": """Log <scale, shift, factor> (x) => (y) {
        slope = Constant <value_float: float = @scale> ()
        offset = Constant <value_float: float = @shift> ()
        unit = Constant <value_float: float = @factor> ()
        scaled = Mul(x, slope)
        shifted = Add(scaled, offset)
        natural = Log(shifted)
        y = Mul(natural, unit)
    }""",
    "Swish": """Swish <beta> (x) => (y) {
        factor = Constant <value_float: float = @beta> ()
        scaled = Mul(x, factor)
        gate = Sigmoid(scaled)
        y = Mul(x, gate)
    }""",
    "Threshold": """Threshold <threshold> (x) => (y) {
        bound = Constant <value_float: float = @threshold> ()
        above = Greater(x, bound)
        y = Cast <to: int = 1> (above)
    }""",
    "MVN": f"""MVN <axes, eps> (x, over) => (y) {{{_NORM}
        mean = ReduceMean(x, over)
        centered = Sub(x, mean)
        square = Mul(centered, centered)
        variance = ReduceMean(square, over)
        deviation = Sqrt(variance)
        norm = Add(deviation, e)
        y = Div(centered, norm)
    }}""",
    "MVNMean": """MVNMean <axes> (x, over) => (y) {
        mean = ReduceMean(x, over)
        y = Sub(x, mean)
    }""",
    "Normalize": f"""Normalize <axes, eps> (x, over, scale) => (y) {{{_NORM}
        square = Mul(x, x)
        total = ReduceSum(square, over)
        shifted = Add(total, e)
        norm = Sqrt(shifted)
        unit = Div(x, norm)
        y = Mul(unit, scale)
    }}""",
    "Embed": """Embed (x, weight, bias) => (y) {
        rows = Cast <to: int = 7> (x)
        picked = Gather <axis: int = 0> (weight, rows)
        y = Add(picked, bias)
    }""",
    "BatchReindex": """BatchReindex (x, index) => (y) {
        images = Cast <to: int = 7> (index)
        y = Gather <axis: int = 0> (x, images)
    }""",
    "ExpandLike": """ExpandLike (x, like) => (y) {
        shape = Shape(like)
        y = Expand(x, shape)
    }""",
    "Crop": """Crop <axis, offset> (x, like, starts, axes) => (y) {
        shape = Shape(like)
        wanted = Gather <axis: int = 0> (shape, axes)
        ends = Add(starts, wanted)
        y = Slice(x, starts, ends, axes)
    }""",
    **{
        f"Reduction{name}": f"""Reduction{name} <axes, coeff> (x, over) => (y) {{
        factor = Constant <value_float: float = @coeff> ()
        total = {op} <keepdims: int = 0> (x, over)
        y = Mul(total, factor)
    }}"""
        for name, op in _REDUCERS.items()
    },
    "ArgMaxIndices": _arg_max(True, "indices"),
    "ArgMaxBoth": _arg_max(True, "both"),
    "ArgMaxAlongIndices": _arg_max(False, "indices"),
    "ArgMaxAlongValues": _arg_max(False, "values"),
    "Upsample": _unpool(
        "Upsample", "scale, pad_out", "factors, less", "scaled = Mul(small, factors)\n        plane = Sub(scaled, less)"
    ),
    "UpsampleTo": _unpool("UpsampleTo", "size", "plane_size", "plane = Identity(plane_size)"),
    "Interp": _interp(
        "Interp", "<shrink_factor, zoom_factor>", "x, shrink, zoom, one",
        """plane_size = Shape <start: int = 2> (x)
        below = Sub(plane_size, one)
        shrunk = Div(below, shrink)
        zoomed = Mul(shrunk, zoom)
        plane = Add(zoomed, one)""",
    ),
    "InterpTo": _interp("InterpTo", "<height, width>", "x, size", "plane = Identity(size)"),
    "InterpLike": _interp("InterpLike", "", "x, like", "plane = Shape <start: int = 2> (like)"),
}  # fmt: skip
