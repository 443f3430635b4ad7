"""The parameters of a pycaffe network: read, shared and written."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from ...errors import ModelError
from ...importers.caffe import NetParameter, read_weights, write_caffemodel, write_hdf5
from .blob import ParamBlob
from .network import Layer, LayerNetwork


class NetParameters:
    """What `PycaffeNet` does with its parameters."""

    name: str
    layers: list[Layer]
    params: OrderedDict[str, list[ParamBlob]]
    """Layer name -> its parameter blobs (weight, bias)."""
    _network: LayerNetwork

    def copy_from(self, weights: str | Path) -> None:
        """Take the parameters of every layer that a caffemodel (or HDF5 file) has under the same name.

        Raises ModelError where one does not fit; then nothing has been copied.
        """
        stored_blobs = read_weights(weights)
        pairs = []
        for name, blobs in self.params.items():
            stored = stored_blobs.get(name)
            if not stored:
                continue
            if len(stored) != len(blobs):
                raise ModelError(f"{weights}: layer '{name}' holds {len(stored)} blobs, wanted {len(blobs)}")
            for index, (source, blob) in enumerate(zip(stored, blobs, strict=True)):
                if not source.fits(blob.shape):
                    where = f"{weights}: layer '{name}', parameter {index}"
                    raise ModelError(f"{where}: shape {list(source.shape)}, wanted {list(blob.shape)}")
                pairs.append((blob, source.data))
        for blob, array in pairs:
            blob.fill(array)

    def share_with(self, other: NetParameters) -> None:
        """Use the parameters of the layers of `other` that have the same names: the same memory from now on.

        Raises ModelError where shapes differ.
        """
        for layer in self.layers:
            theirs = other.params.get(layer.name)
            if not layer.blobs or theirs is None:
                continue
            shapes = [[list(blob.shape) for blob in blobs] for blobs in (layer.blobs, theirs)]
            if shapes[0] != shapes[1]:
                raise ModelError(f"share_with: layer '{layer.name}' has {shapes[1]} there, {shapes[0]} here")
            self._network.adopt(layer, theirs)

    def save(self, path: str | Path) -> None:
        """Write the network and its parameters as a caffemodel. Raises InputError where it cannot be written."""
        message = NetParameter(name=self.name)
        message.layer.extend(entry.proto for entry in self._network.net.layers if not entry.dropped)
        write_caffemodel(path, text_format.MessageToString(message), self._arrays())

    def save_hdf5(self, path: str | Path) -> None:
        """Write the parameters as Caffe's HDF5 snapshots hold them. Raises as `save`; UnsupportedError without h5py."""
        write_hdf5(path, self._arrays())

    load_hdf5 = copy_from

    def _arrays(self) -> dict[str, list[np.ndarray]]:
        return {name: [blob.tensor.numpy() for blob in blobs] for name, blobs in self.params.items()}

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to 0; nothing here writes to them."""
        for blob in (blob for blobs in self.params.values() for blob in blobs):
            blob.diff[...] = 0
