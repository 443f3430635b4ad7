"""The formulas in float64, by shifted slices: written from the method's description and from nothing of the project."""

from __future__ import annotations

import numpy as np


def padded(x: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How much zero padding makes every tap of every output lie inside."""
    return max(padding, (out - 1) * stride - padding + (kernel - 1) * dilation - size + 1, 0)


def conv_up(
    x: np.ndarray,
    w: np.ndarray,
    out: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    n, _, h, wd = x.shape
    o, per, kh, kw = w.shape
    pad = max(
        taps(h, out[0], kh, stride[0], padding[0], dilation[0]),
        taps(wd, out[1], kw, stride[1], padding[1], dilation[1]),
    )
    xp = padded(x, pad).reshape(n, groups, per, h + 2 * pad, wd + 2 * pad)
    wg = w.reshape(groups, o // groups, per, kh, kw)
    z = np.zeros((n, groups, o // groups, *out))
    for i in range(kh):
        for j in range(kw):
            a, b = pad - padding[0] + i * dilation[0], pad - padding[1] + j * dilation[1]
            part = xp[
                :,
                :,
                :,
                a : a + (out[0] - 1) * stride[0] + 1 : stride[0],
                b : b + (out[1] - 1) * stride[1] + 1 : stride[1],
            ]
            z += np.einsum("ngchw,goc->ngohw", part, wg[..., i, j])
    return z.reshape(n, o, *out)


def conv_down(
    r: np.ndarray,
    w: np.ndarray,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    n, o, oh, ow = r.shape
    _, per, kh, kw = w.shape
    h, wd = size
    pad = max(taps(h, oh, kh, stride[0], padding[0], dilation[0]), taps(wd, ow, kw, stride[1], padding[1], dilation[1]))
    rg, wg = r.reshape(n, groups, o // groups, oh, ow), w.reshape(groups, o // groups, per, kh, kw)
    below = np.zeros((n, groups, per, h + 2 * pad, wd + 2 * pad))
    for i in range(kh):
        for j in range(kw):
            a, b = pad - padding[0] + i * dilation[0], pad - padding[1] + j * dilation[1]
            below[
                :, :, :, a : a + (oh - 1) * stride[0] + 1 : stride[0], b : b + (ow - 1) * stride[1] + 1 : stride[1]
            ] += np.einsum("ngohw,goc->ngchw", rg, wg[..., i, j])
    return below[:, :, :, pad : pad + h, pad : pad + wd].reshape(n, groups * per, h, wd)


def share(p: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.divide(p, z, out=np.zeros(np.broadcast_shapes(p.shape, z.shape)), where=z != 0)


def tf32(x: np.ndarray) -> np.ndarray:
    """Nearest, ties away from zero, 10 bits of fraction; by arithmetic and not by bits."""
    _, e = np.frexp(np.abs(x.astype(np.float64)))
    unit = np.ldexp(1.0, np.maximum(e, -125) - 11)
    return (np.sign(x) * np.floor(np.abs(x.astype(np.float64)) / unit + 0.5) * unit).astype(np.float32)


def bf16(x: np.ndarray) -> np.ndarray:
    """Nearest, ties to even, 7 bits of fraction."""
    _, e = np.frexp(np.abs(x.astype(np.float64)))
    unit = np.ldexp(1.0, np.maximum(e, -125) - 8)
    return (np.rint(x.astype(np.float64) / unit) * unit).astype(np.float32)


def windows(
    h: int,
    w: int,
    out: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
):
    """Per output: the list of (row, column, tap) inside the image, in order."""
    for a in range(out[0]):
        for b in range(out[1]):
            inside = []
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    y, x = a * stride[0] - padding[0] + i * dilation[0], b * stride[1] - padding[1] + j * dilation[1]
                    if 0 <= y < h and 0 <= x < w:
                        inside.append((y, x, i * kernel[1] + j))
            yield a, b, inside


def max_pool(x: np.ndarray, *g, none: int) -> tuple[np.ndarray, np.ndarray]:
    n, c, h, w = x.shape
    y, code = np.full((n, c, *g[0]), -np.finfo(np.float32).max, x.dtype), np.full((n, c, *g[0]), none, np.int64)
    for a, b, inside in windows(h, w, *g):
        if not inside:
            continue
        best, at = x[:, :, inside[0][0], inside[0][1]].copy(), np.full((n, c), inside[0][2])
        for i, j, tap in inside:
            v = x[:, :, i, j]
            better = (v > best) | np.isnan(v)
            best, at = np.where(better, v, best), np.where(better, tap, at)
        y[:, :, a, b], code[:, :, a, b] = best, at
    return y, code


def max_route(p: np.ndarray, code: np.ndarray, size: tuple[int, int], *g) -> np.ndarray:
    n, c = p.shape[:2]
    below = np.zeros((n, c, *size))
    code = np.repeat(code, n // code.shape[0], 0)
    for a, b, inside in windows(*size, *g):
        for i, j, tap in inside:
            below[:, :, i, j] += np.where(code[:, :, a, b] == tap, p[:, :, a, b], 0)
    return below


def window_sum(x: np.ndarray, divisor: int, *g) -> np.ndarray:
    out, kernel, stride, padding, _ = g
    y = np.zeros((*x.shape[:2], *out))
    for a, b, inside in windows(*x.shape[2:], *g):
        for i, j, _tap in inside:
            y[:, :, a, b] += x[:, :, i, j]
        if divisor == 1:
            with np.errstate(invalid="ignore"):
                y[:, :, a, b] /= len(inside)
        elif divisor == 2:
            n = 1
            for k, at in enumerate((a, b)):
                start = at * stride[k] - padding[k]
                n *= min(start + kernel[k], x.shape[2 + k] + padding[k]) - start
            y[:, :, a, b] /= n
    return y


def window_spread(r: np.ndarray, size: tuple[int, int], *g) -> np.ndarray:
    below = np.zeros((*r.shape[:2], *size))
    for a, b, inside in windows(*size, *g):
        for i, j, _tap in inside:
            below[:, :, i, j] += r[:, :, a, b]
    return below


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    y, c = np.empty_like(x), x.shape[1]
    for i in range(c):
        first = max(0, i - (size - 1) // 2)
        end = min(c, i + size - (size - 1) // 2)
        y[:, i] = x[:, i] / (k + alpha / size * (x[:, first:end] ** 2).sum(1)) ** beta
    return y


def winner(xs: list[np.ndarray]) -> np.ndarray:
    """Which input is the largest: of the first two the second on a tie, later ones only where they are larger."""
    best = np.zeros(xs[0].size, np.int64)
    if len(xs) == 1:
        return best
    best = np.where(xs[0] > xs[1], 0, 1)
    top = np.where(best == 0, xs[0], xs[1])
    for i in range(2, len(xs)):
        later = xs[i] > top
        best, top = np.where(later, i, best), np.where(later, xs[i], top)
    return best
