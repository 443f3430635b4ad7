"""ONNX files and models: `load_onnx` gives their `Graph`."""

from .reader import load_onnx

__all__ = ["load_onnx"]
