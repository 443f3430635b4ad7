"""Attribution as one ONNX graph of standard operators: forward pass, seed, sweep and read-out, for any ONNX runtime.

No rule is written a second time for it. The engine makes its ordinary call (`engine.run.measure`) once while torch
records which operators it runs (tracing.py), and each recorded operator becomes a few ONNX nodes (operators.py): a
share is Conv, Div, ConvTranspose and Mul, a route is ScatterElements at the places that MaxPool names. The other way
would have been a table from each kind of rule to ONNX nodes. It would be a second engine: two dozen rules in two rule
sets, each with its signs, its neurons without excitation and its two halves of the contrast, all to be kept equal to
rules/ by hand. Operators are fewer and have one meaning each, a rule of the user's own (`register_rule`) exports
without a line of ONNX, and what has no ONNX form is known by name before anything is written.

The record depends on nothing but shapes: where a rule looks at numbers to skip work that would add zeros ("conserving"
asks whether any neuron has no excitation), it is told that the work is needed. Batch size stays open: the call is
recorded for two sizes, and the two graphs must be the same.
"""

from .model import export_onnx

__all__ = ["export_onnx"]
