"""pycaffe's Net: blobs and parameters that scripts read and write, layers that run one after another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError, ShapeError, nearest_names
from .blob import Blob
from .modes import TEST, TRAIN, settings
from .net_parameters import NetParameters
from .network import LayerNetwork
from .runner import Runner

_PHASES = {TRAIN: "TRAIN", TEST: "TEST"}


class Arrays(Mapping[str, np.ndarray]):
    """Blob name -> its data or diff. Nothing is copied out of the engine until somebody asks for it."""

    def __init__(self, blobs: Mapping[str, Blob], names: Iterable[str], side: str) -> None:
        self._blobs, self._names, self._side = blobs, list(dict.fromkeys(names)), side

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return np.asarray(getattr(self._blobs[name], self._side))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))


class PycaffeNet(NetParameters):
    """A network with pycaffe's names: what scripts know as caffe.Net.

    Net(prototxt, phase), Net(prototxt, caffemodel, phase), or with weights=, phase=, level=, stages=.
    stored_statistics: BatchNorm layers that ask for the statistics of the batch take the stored ones; by default they
    are refused.
    blobs: ordered, name -> Blob. params: ordered, layer name -> list of parameter blobs (weight, bias). inputs,
    outputs: blob names. layers: with `name`, `type` and `blobs`. top_names, bottom_names: layer name -> blob names.

    Raises ModelError (files that cannot be read or do not fit), UnsupportedError (a layer type that is not here).
    """

    def __init__(
        self,
        network_file: str | Path,
        *args: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | Path | None = None,
        stored_statistics: bool = False,
    ) -> None:
        for arg in args:
            if isinstance(arg, (str, Path)):
                weights = arg
            elif phase is None:
                phase = arg
            else:
                raise InputError(f"Net({network_file}): phase given twice: {phase} and {arg}")
        if phase not in _PHASES:
            raise InputError(f"Net({network_file}): phase {phase!r}; wanted caffe.TRAIN or caffe.TEST")
        self._network = LayerNetwork(network_file, weights, _PHASES[phase], level, stages or (), stored_statistics)
        self.layers = self._network.layers
        self._layer_names = [layer.name for layer in self.layers]
        self.name = self._network.net.name
        self.blobs: OrderedDict[str, Blob] = OrderedDict()
        self._make_blobs()
        self._blob_names = list(self.blobs)
        self._runner = Runner(self._network, self.blobs)
        self.params = OrderedDict((layer.name, layer.blobs) for layer in self.layers if layer.blobs)
        self.layer_dict = OrderedDict((layer.name, layer) for layer in self.layers)
        self.top_names = OrderedDict((layer.name, list(layer.tops)) for layer in self.layers)
        self.bottom_names = OrderedDict((layer.name, list(layer.bottoms)) for layer in self.layers)
        fed = {**self._network.input_shapes, **self._network.unread_shapes}
        self.inputs = [top for layer in self.layers if layer.type != "Split" for top in layer.tops
                       if layer.entry is None and top in fed]  # fmt: skip
        read = {blob for layer in self.layers for blob in layer.bottoms}
        copies = {top for layer in self.layers if layer.type == "Split" for top in layer.tops}
        idle = {*read, *copies, *self._network.unread_shapes}
        self.outputs = sorted(blob for blob in self.blobs if blob not in idle)

    def _make_blobs(self) -> None:
        for layer in self.layers:
            for top, value in zip(layer.tops, layer.outputs, strict=True):
                if layer.type == "Split":
                    source = self.blobs[layer.bottoms[0]]
                    self.blobs[top] = Blob(top, source.shape, source.values)
                elif top not in self.blobs:
                    self.blobs[top] = Blob(top, self._network.shapes[value])
                    constant = self._network.constants.get(value)
                    if constant is not None:
                        self.blobs[top].data[...] = constant

    # --- what pycaffe's own modules and older scripts reach into ---

    @property
    def _blobs(self) -> list[Blob]:
        return list(self.blobs.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    def _bottom_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(name) for name in self.layers[index].bottoms]

    def _top_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(name) for name in self.layers[index].tops]

    # --- running ----------------------------------------------------------------------------------------------------

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> Arrays:
        """Run the layers from `start` to `end`, both included, and return blobs by name.

        inputs: data for the network's inputs, by blob name, all of them or none; those that no layer here reads, such
        as a label, may be missing. Returned are the tops of `end` (the network's outputs where it is not given) and
        the `blobs` asked for. Raises InputError for unknown names.
        """
        first = 0 if start is None else self._place(start, "start")
        last = len(self.layers) - 1 if end is None else self._place(end, "end")
        names = self.outputs if end is None else self._returned(end, self.top_names)
        wanted = [*names, *self._known(blobs, "blobs")]
        if inputs:
            self._feed(inputs, self.inputs, "data")
        if first == 0:
            self._follow_inputs(last)
        self._fill_parameter_tops()
        self._runner.forward(first, last)
        return Arrays(self.blobs, wanted, "data")

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **tops: Any
    ) -> Arrays:
        """Run the layers down from `start` to `end`, both included, in the mode of `set_mode_*`; return diffs by name.

        tops: diffs for the network's outputs, by blob name, all of them or none. Returned are the diffs of the bottoms
        of `end` (of the network's inputs where it is not given), that of the blob named like `end`, and `diffs`.
        Raises InputError (unknown names; in strict mode where the original would do nothing) and UnsupportedError.
        """
        first = len(self.layers) - 1 if start is None else self._place(start, "start")
        last = 0 if end is None else self._place(end, "end")
        names = self.inputs if end is None else self._returned(end, self.bottom_names)
        wanted = [*names, *self._known(diffs, "diffs")]
        if tops:
            self._feed(tops, self.outputs, "diff")
        self._check_backward(first, last)
        self._runner.backward(first, last)
        return Arrays(self.blobs, wanted, "diff")

    def _check_backward(self, first: int, last: int) -> None:
        span = [layer for layer in self.layers[last : first + 1] if layer.bottoms]
        if settings.strict and span and not any(layer.needs_backward for layer in span):
            raise InputError(
                f"{self._network.net.origin}: the original's backward pass skips every layer from "
                f"'{self.layers[first].name}' to '{self.layers[last].name}' and leaves stale diffs: the network has no "
                "loss. Add `force_backward: true` to the prototxt"
            )

    def _place(self, name: str, argument: str) -> int:
        if name not in self._layer_names:
            raise InputError(f"{argument}='{name}': no such layer{nearest_names(name, self._layer_names)}")
        return self._layer_names.index(name)

    def _returned(self, end: str, names: Mapping[str, list[str]]) -> list[str]:
        return [*([end] if end in self.blobs else []), *names[end]]

    def _known(self, names: Sequence[str] | None, argument: str) -> Sequence[str]:
        for name in names or ():
            if name not in self.blobs:
                raise InputError(f"{argument}: no blob '{name}'{nearest_names(name, self.blobs)}")
        return names or ()

    def _feed(self, arrays: Mapping[str, Any], names: Sequence[str], side: str) -> None:
        unread = self._network.unread_shapes
        if not set(names).difference(unread) <= set(arrays) <= set(names):
            raise InputError(f"got arrays for {', '.join(arrays)}; wanted one for each of {', '.join(names)}")
        for name, array in arrays.items():
            blob, array = self.blobs[name], np.asarray(array)
            if name in unread and array.ndim and array.size:
                blob.reshape(*array.shape)  # nothing reads it: any size will do
            if array.ndim == 0 or array.shape[0] != blob.shape[0]:
                raise ShapeError(f"'{name}': got shape {list(array.shape)}, wanted the batch of {list(blob.shape)}")
            try:
                getattr(blob, side)[...] = array
            except ValueError:
                raise ShapeError(f"'{name}': got shape {list(array.shape)}, wanted {list(blob.shape)}") from None

    def _fill_parameter_tops(self) -> None:
        """The top of a Parameter layer is its parameter, as it is now."""
        for layer in self.layers:
            if layer.type == "Parameter":
                values, parameter = self.blobs[layer.tops[0]].values, layer.blobs[0].tensor
                if not torch.equal(values.tensor(parameter.device), parameter):
                    values.put(parameter.clone(), computed=False)

    def _follow_inputs(self, last: int) -> None:
        """As in Caffe, where layers take their shape when they run, those behind layer `last` are not asked."""
        network = self._network
        entry = max((layer.entry.index for layer in self.layers[: last + 1] if layer.entry), default=-1)
        if entry > network.last_shaped or any(self.blobs[n].shape != s for n, s in network.input_shapes.items()):
            self._reshape(entry)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs' present ones. Raises ShapeError, ModelError."""
        self._reshape(len(self._network.net.layers) - 1)

    def _reshape(self, last: int) -> None:
        inputs = {name: self.blobs[name].shape for name in self._network.input_shapes}
        shapes = self._network.reshape(inputs, last)
        for layer in self.layers:
            for top, value in zip(layer.tops, layer.outputs, strict=True):
                if layer.type not in ("Split", "Input") and value in shapes:
                    self.blobs[top].values.reshape(shapes[value])

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
        """`forward` over any number of items in batches of the input's size; the rest of the last one is zeros."""
        found: dict[str, list[np.ndarray]] = {}
        count = len(next(iter(inputs.values()))) if inputs else 0
        for batch in self._batches(inputs):
            for name, array in self.forward(blobs, **batch).items():
                found.setdefault(name, []).extend(array.copy())
        return {name: np.asarray(rows[:count]) for name, rows in found.items()}

    def _batches(self, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if not given:
            raise InputError(f"got no arrays; wanted one for each of {', '.join(self.inputs)}")
        if len({len(array) for array in given.values()}) != 1:
            raise InputError("arrays of different length: " + ", ".join(f"{k} {len(v)}" for k, v in given.items()))
        size, count = self.blobs[self.inputs[0]].shape[0], len(next(iter(given.values())))
        for start in range(0, count, size):
            batch = {name: np.asarray(array[start : start + size], np.float32) for name, array in given.items()}
            missing = size - len(next(iter(batch.values())))
            if missing:
                batch = {k: np.concatenate([v, np.zeros((missing, *v.shape[1:]), v.dtype)]) for k, v in batch.items()}
            yield batch

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """`forward` and `backward` over any number of items. arrays: data by input name and diffs by output name."""
        count = len(next(iter(arrays.values()))) if arrays else 0
        up: dict[str, list[np.ndarray]] = {}
        down: dict[str, list[np.ndarray]] = {}
        for batch in self._batches(arrays):
            data: dict[str, Any] = {name: array for name, array in batch.items() if name in self.inputs}
            signals: dict[str, Any] = {name: array for name, array in batch.items() if name not in self.inputs}
            for found, result in ((up, self.forward(blobs, **data)), (down, self.backward(diffs, **signals))):
                for name, array in result.items():
                    found.setdefault(name, []).extend(array.copy())
        cut = [{name: np.asarray(rows[:count]) for name, rows in found.items()} for found in (up, down)]
        return cut[0], cut[1]

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """For MemoryData layers in pycaffe; here inputs are blobs. Raises InputError."""
        raise InputError(f"set_input_arrays: write to the input blobs instead: {', '.join(self.inputs)}")

    def __repr__(self) -> str:
        return f"<caffe.Net {self._network.net.origin}: {len(self.layers)} layers, {len(self.blobs)} blobs>"


Net = PycaffeNet
"""The name that scripts know it by."""
