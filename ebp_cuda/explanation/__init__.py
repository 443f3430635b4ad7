"""The one-liner: `ebp_cuda.explain(network, photo)` gives maps with a picture."""

from .explaining import explain
from .result import Explanation

__all__ = ["Explanation", "explain"]
