"""A network carried down by hand on NumPy arrays, with ebp_cuda.functional; torch and CuPy arrays work the same."""

from __future__ import annotations

import numpy as np

from ebp_cuda import functional

draw = np.random.default_rng(0)
image = draw.random((1, 3, 16, 16), dtype=np.float32)
w1, w2 = (draw.standard_normal(shape).astype(np.float32) for shape in ((8, 3, 3, 3), (4, 8)))

# Up: a convolution with ReLU, max pooling, the mean, a fully connected layer. Any code of your own will do.
windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (2, 3))  # [1, 3, 14, 14, 3, 3]
conv = np.maximum(np.einsum("nchwij,ocij->nohw", windows, w1), 0)
pooled = conv.reshape(1, 8, 7, 2, 7, 2).max((3, 5))
mean = pooled.mean((2, 3))
scores = mean @ w2.T
print("scores", scores.round(2))

# Down: probability 1 on each of the four classes of the one image, a row each.
p = np.eye(4, dtype=np.float32)
p = functional.linear(p, mean, w2)
p = functional.avg_pool2d(p.reshape(4, 8, 1, 1), pooled, 7)
p = functional.max_pool2d(p, conv, 2)
p = functional.conv2d(p, image, w1)
print(f"relevance of the pixels: {type(p).__name__} {p.dtype} {p.shape}, sums {p.sum((1, 2, 3)).round(3)}")
