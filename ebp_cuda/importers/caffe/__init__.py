"""Caffe networks: prototxt and caffemodel in, ONNX out.

import_net                the import: an ONNX model, its tensors, a report
to_onnx, import_file      the same as one message, and into a file
read_net, parse_net       a prototxt as the layers of one phase; network_layers lists them; split_blob_names
read_weights              caffemodel or HDF5 -> {layer: [blobs]}
write_caffemodel, write_hdf5    {layer: [arrays]} -> weights file
schema.NetParameter       the message itself
"""

from .blobs import WeightBlob
from .hdf5 import write_hdf5
from .importer import Imported, ImportOptions, import_file, import_net, to_onnx
from .layer import Layer
from .net import CaffeNet, network_layers, parse_net, read_net, split_blob_names
from .parameters import ImportReport
from .reading import parse_prototxt, read_prototxt, read_weights, write_caffemodel
from .saving import save
from .schema import NetParameter
from .shapes import infer_shapes

__all__ = [
    "CaffeNet",
    "ImportOptions",
    "ImportReport",
    "Imported",
    "Layer",
    "NetParameter",
    "WeightBlob",
    "import_file",
    "import_net",
    "infer_shapes",
    "network_layers",
    "parse_net",
    "parse_prototxt",
    "read_net",
    "read_prototxt",
    "read_weights",
    "save",
    "split_blob_names",
    "to_onnx",
    "write_caffemodel",
    "write_hdf5",
]
