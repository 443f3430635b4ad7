"""Model files: what is tried on the importers, and the seeds of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from ebp_cuda.importers import caffe
from ebp_cuda.importers.onnx import load_onnx
from fuzz.mutations import mutate_binary, mutate_text

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
BLOCK = GOLDEN / "caffemodel" / "inception_block"
EXTRA = b"""
input: "x" input_shape { dim: 1 dim: 4 dim: 8 dim: 8 }
layer { name: "a" type: "Interp" bottom: "x" top: "a" interp_param { zoom_factor: 2 pad_beg: -1 } }
layer { name: "b" type: "Crop" bottom: "a" bottom: "x" top: "b" crop_param { offset: 1 offset: 2 } }
layer { name: "c" type: "Tile" bottom: "b" top: "c" tile_param { axis: 1 tiles: 2 } }
layer { name: "d" type: "ShuffleChannel" bottom: "c" top: "d" shuffle_channel_param { group: 4 } }
layer { name: "e" type: "SPP" bottom: "d" top: "e" spp_param { pyramid_height: 2 pool: AVE } }
layer { name: "f" type: "ArgMax" bottom: "d" top: "f" argmax_param { top_k: 2 axis: 1 out_max_val: true } }
layer { name: "g" type: "Reshape" bottom: "c" top: "g" reshape_param { shape { dim: 0 dim: -1 } axis: 0 num_axes: -1 } }
layer { name: "h" type: "Embed" bottom: "f" top: "h" embed_param { num_output: 3 input_dim: 9 } }
layer { name: "i" type: "BN" bottom: "d" top: "i" bn_param { frozen: true } }
layer { name: "j" type: "Im2col" bottom: "x" top: "j" convolution_param { kernel_size: 3 } }
layer { name: "k" type: "Slice" bottom: "x" top: "k" top: "l" slice_param { axis: 1 slice_point: 1 } }
layer { name: "m" type: "Pooling" bottom: "x" top: "m" top: "n" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "o" type: "Upsample" bottom: "m" bottom: "n" top: "o" upsample_param { scale: 2 } }
layer { name: "p" type: "Reorg" bottom: "x" top: "p" reorg_param { stride: 2 reverse: true } }
layer { name: "q" type: "BatchNorm" bottom: "p" top: "q" batch_norm_param { scale_bias: true filler {} } }
layer { name: "r" type: "Pooling" bottom: "q" top: "r" pooling_param { pool: AVE_EXC_PAD kernel_size: 3 ceil_mode: false
    pad_t: 1 pad_b: 1 pad_l: 0 pad_r: 1 } }
layer { name: "s" type: "Convolution" bottom: "x" top: "s" convolution_param { num_output: 2 kernel_size: 3 pad_b: 1 } }
layer { name: "t" type: "Slice" bottom: "s" top: "t" slice_param { axis: 0 } }
layer { name: "u" type: "Squeeze" bottom: "t" top: "u" squeeze_param { axis: 0 } }
layer { name: "v" type: "Reduction" bottom: "u" top: "v" reduction_param { axis: 0 } }
"""
VERSION_0 = b"""
layers { layer { name: "d" type: "data" batchsize: 1 cropsize: 8 } top: "d" top: "l" }
layers { layer { name: "p" type: "padding" pad: 1 } bottom: "d" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 } bottom: "p" top: "c" }
layers { layer { name: "i" type: "innerproduct" num_output: 2 } bottom: "c" top: "i" }
"""


def prototxt_seeds() -> list[bytes]:
    files = [*(GOLDEN / "tiny").glob("*.prototxt"), *(GOLDEN / "caffemodel").glob("*.prototxt")]
    return [EXTRA, VERSION_0, *(path.read_bytes() for path in sorted(files))]


def try_prototxt(data: bytes, folder: Path) -> None:
    path = folder / "net.prototxt"
    path.write_bytes(data)
    onnx.checker.check_model(caffe.to_onnx(path))


def try_caffemodel(data: bytes, folder: Path) -> None:
    path = folder / "net.caffemodel"
    path.write_bytes(data)
    caffe.read_weights(path)
    caffe.to_onnx(f"{BLOCK}.prototxt", path)


def try_onnx(data: bytes, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(data)
    load_onnx(path)


def onnx_seeds() -> list[bytes]:
    found = [caffe.to_onnx(f"{BLOCK}.prototxt", f"{BLOCK}.caffemodel").SerializeToString()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_bytes(EXTRA)
        return [*found, caffe.to_onnx(path).SerializeToString()]


TARGETS = {
    "prototxt": (prototxt_seeds, mutate_text, try_prototxt),
    "caffemodel": (
        lambda: [p.read_bytes() for p in sorted(BLOCK.parent.glob("*.caffemodel"))], mutate_binary, try_caffemodel,
    ),
    "hdf5": (lambda: [p.read_bytes() for p in sorted(BLOCK.parent.glob("*.h5"))], mutate_binary, try_caffemodel),
    "onnx": (onnx_seeds, mutate_binary, try_onnx),
}  # fmt: skip
