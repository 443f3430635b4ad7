"""pycaffe's face on the same engine: `from ebp_cuda import caffe` in place of `import caffe`.

docs/pycaffe.md lists what differs from the original.
"""

from .modes import (
    TEST,
    TRAIN,
    set_device,
    set_mode_cpu,
    set_mode_dc_cpu,
    set_mode_dc_gpu,
    set_mode_eb_cpu,
    set_mode_eb_gpu,
    set_mode_gpu,
    set_random_seed,
    set_strict,
)
from .net import Net

__all__ = [
    "TEST",
    "TRAIN",
    "Net",
    "set_device",
    "set_mode_cpu",
    "set_mode_dc_cpu",
    "set_mode_dc_gpu",
    "set_mode_eb_cpu",
    "set_mode_eb_gpu",
    "set_mode_gpu",
    "set_random_seed",
    "set_strict",
]
