"""A loaded network: what the importers give and everything else takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakMethod, ref

import torch

from . import engine
from .engine.candidates import Candidate, candidates
from .engine.fold import fold
from .engine.plan import Plan, device_of, dtype_of
from .engine.shared_weights import checked_weights, copy_params
from .engine.status import CallLog, status_of
from .errors import InputError, ModelError, ShapeError, nearest_names
from .graph import Graph
from .interop import to_tensor
from .rules import OPERATIONS, RULE_SETS, check_rule_set, rule_of
from .vocabulary import operations

ExampleInput = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]

ArrayLike = Any
"""A torch tensor, a NumPy or CuPy array, or whatever NumPy makes an array of."""
Input = ArrayLike | Mapping[str, ArrayLike]
"""An array [N, C, ...], for a network with several inputs a tuple of them or a dict by input name."""

_SCORING = operations("softmax", "log_softmax", "log", "sigmoid", "identity")


class Net:
    """A network with its weights. Made by `load` and `from_torch`; never edits what it was made from."""

    def __init__(self, graph: Graph, check_weights: str = "sampled") -> None:
        self.graph, self.check_weights = graph, checked_weights(check_weights)
        self._folded: Graph | None = None
        self._plans: dict[tuple[str, torch.device, torch.dtype, str], Plan] = {}
        self.log: CallLog[None] = CallLog()
        """Calls of `forward` and of the adapters that a GPU still works on."""
        self._module: ref[torch.nn.Module] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies take along: not the reference to the module, which may not be there."""
        return {**vars(self), "_module": None}

    @property
    def module(self) -> torch.nn.Module | None:
        """The torch module that the network was read from, as long as somebody else holds it."""
        return None if self._module is None else self._module()

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes in order, where the model knows them."""
        return self.graph.meta.get("labels")

    @property
    def preprocess(self) -> dict[str, Any] | None:
        """How a photo becomes an input (see `ebp_cuda.images.preprocess.Preprocess`); None: the model does not say."""
        return self.graph.meta.get("preprocess")

    def plan(self, rules: str = "caffe", device: str | torch.device = "cpu", dtype: str | torch.dtype = "fp32") -> Plan:
        """The plan for a rule set, device and dtype; made at the first call and kept."""
        key = (check_rule_set(rules), device_of(device), *dtype_of(dtype))
        if key not in self._plans:
            if rules == "conserving" and self._folded is None:
                self._folded = fold(self.graph)
                if self.graph.weights is not None:
                    self.graph.weights.followers.append(WeakMethod(self._fold_again))
            graph = self._folded if rules == "conserving" and self._folded is not None else self.graph
            self._plans[key] = Plan(graph, *key)
        return self._plans[key]

    def forward(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        outputs: Sequence[str] | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "fp32",
    ) -> dict[str, torch.Tensor]:
        """Activations by name.

        x: the input [N, C, H, W], or a dict by input name. outputs: names of blobs, layers or modules; the network's
        outputs where not given. A Caffe in-place blob gives its final content.
        Raises InputError (unknown name, NaN) and ShapeError.
        """
        plan = self.plan("caffe", device, dtype)
        names = list(self.graph.outputs) if outputs is None else list(outputs)
        values = {name: self.graph.resolve(name)[-1] for name in names}
        self.log.raise_arrived()
        inputs = {name: plan.place(tensor) for name, tensor in self.check_inputs(x).items()}
        status = status_of(tuple(inputs.values()))
        title = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        self.log.enter(status, title, None, lambda read, _: read.check_inputs(self.graph))
        trace = engine.forward(plan, inputs, set(values.values()))
        return {name: trace.values[value].contiguous() for name, value in values.items()}

    def refresh(self) -> None:
        """Takes over the module's present weights: needed after single elements were written by `.data` or NumPy.

        Every other change is seen at the next call by itself (docs/backend.md, "Weights that change").
        """
        if self.graph.weights is not None:
            self.graph.weights.refresh()

    def _fold_again(self) -> None:
        if self._folded is not None:
            copy_params(self._folded, fold(self.graph))

    def check(self) -> None:
        """Waits for all calls of `forward` and of the adapters so far, and raises what was wrong with one of them.

        Needed on a GPU only (see `ExcitationBackprop.check`). Raises InputError or NumericError.
        """
        self.log.check()
        if self.graph.weights is not None:
            self.graph.weights.check()

    def check_inputs(
        self, x: ArrayLike | Mapping[str, ArrayLike], check_weights: str | None = None
    ) -> dict[str, torch.Tensor]:
        """The inputs as tensors by name, checked for shape and dtype; whether they are finite is in a call's status.

        The first step of every call: weights that a torch module has changed since the last one are taken over here.
        check_weights: how closely it looks for them; None: as this network does.
        """
        if self.graph.weights is not None:
            self.graph.weights.update(check_weights or self.check_weights)
        declared = self.graph.inputs
        if isinstance(x, (str, os.PathLike)):
            raise InputError(f"{self.graph.origin}: x is a path; wanted an array (ebp_cuda.explain takes a photo)")
        if isinstance(x, (tuple, list)) and len(x) == len(declared) and (len(x) > 1 or hasattr(x[0], "shape")):
            x = dict(zip(declared, x, strict=True))  # as a module is called; a list of numbers is an array
        if not isinstance(x, Mapping):
            if len(declared) != 1:
                names = ", ".join(declared)
                raise InputError(f"{self.graph.origin} has inputs {names}: give a tuple of them, or a dict by name")
            x = {next(iter(declared)): x}
        for name in x:
            if name not in declared:
                raise InputError(f"{self.graph.origin}: no input '{name}'{nearest_names(name, declared)}")
        for name in declared:
            if name not in x:
                raise InputError(f"{self.graph.origin}: input '{name}' was not given")
        inputs = {name: self._checked(name, x[name]) for name in declared}
        shapes = {name: tensor.shape for name, tensor in inputs.items()}
        for condition in self.graph.meta.get("size_conditions", ()):
            if not condition.holds(shapes):
                raise ShapeError(
                    f"{self.graph.origin}: inputs of {', '.join(str(list(shape)) for shape in shapes.values())}: the "
                    f"module does something else for these than for its example, for which {condition}; import it "
                    "with an example of this size"
                )
        return inputs

    def _checked(self, name: str, array: ArrayLike) -> torch.Tensor:
        where, shape = f"{self.graph.origin}: input '{name}'", self.graph.inputs[name]
        try:
            tensor = to_tensor(array)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise ShapeError(f"{where}: cannot be read as an array: {error}") from None
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            kinds = [("on the meta device, without numbers", tensor.is_meta), ("quantized", tensor.is_quantized)]
            kind = next((name for name, holds in kinds if holds), f"sparse ({tensor.layout})")
            raise InputError(f"{where} is {kind}; wanted a dense tensor of numbers")
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise ShapeError(f"{where} has dtype {tensor.dtype}, wanted real numbers")
        text = "[" + ", ".join(_dim_text(i, n) for i, n in enumerate(shape)) + "]"
        pairs = zip(shape, tensor.shape, strict=False)
        fits = len(tensor.shape) == len(shape) and all(wanted in (None, got) for wanted, got in pairs)
        if shape and not fits:
            raise ShapeError(f"{where} has shape {list(tensor.shape)}, wanted {text}")
        if 0 in tensor.shape:
            raise ShapeError(f"{where} has shape {list(tensor.shape)}: there is nothing in it")
        return tensor

    def default_top(self, output: str | None = None) -> str:
        """The value a sweep starts from: an output (by default the only one), above its softmax or sigmoid if it has
        one. Raises InputError where there are several and none is named."""
        if output is None and len(self.graph.outputs) != 1:
            outputs = ", ".join(self.graph.outputs)
            raise InputError(f"{self.graph.origin} has {len(self.graph.outputs)} outputs ({outputs}): name one as top=")
        value = self.graph.outputs[0] if output is None else output
        while (index := self.graph.producer.get(value)) is not None and self.graph.nodes[index].op in _SCORING:
            value = self.graph.nodes[index].inputs[0]
        return value

    def shapes(self, size: Mapping[str, Sequence[int]] | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of every value for one image, from a forward pass over zeros of the declared (or given) input size."""
        inputs = {}
        for name, declared in self.graph.inputs.items():
            shape = tuple(size[name]) if size and name in size else (1, *declared[1:])
            if any(n is None for n in shape):
                shape = tuple(self.graph.meta.get("example_shapes", {}).get(name, [n or 224 for n in shape]))
            inputs[name] = torch.zeros([int(n or 1) for n in shape])
        trace = engine.forward(self.plan(), inputs, self.graph.producer)
        return {name: tuple(shape) for name, shape in trace.shapes.items()}

    def candidates(self) -> list[Candidate]:
        """Good places for a map, from the input on: the ends of blocks that every path to the classes crosses.

        Returns:
            With the layer's name, its plane and channels, its depth in the network, and what speaks for or against it;
            `str` of each is a line of text. What `ExcitationBackprop` takes with layer=None is the last good one,
            unless the network is one of the catalogue.

        Raises:
            InputError: the network has several outputs.
        """
        return candidates(self.graph, self.shapes(), self.default_top())

    def explain_support(self) -> list[dict[str, Any]]:
        """Per layer, before anything runs: name, type in the file, op, kind of rule per rule set, what is missing."""
        rows = []
        for node in self.graph.nodes:
            rules = {name: rule_of(node, name) for name in RULE_SETS}
            kinds = {name: rule.kind if rule is not None else None for name, rule in rules.items()}
            without = ", ".join(f"{name} rule" for name, kind in kinds.items() if kind is None)
            missing = "forward" if node.op not in OPERATIONS else without
            row = {"layer": node.name, "type": node.source or node.op, "op": node.op, "outputs": list(node.outputs)}
            rows.append({**row, **kinds, "missing": missing})
        return rows

    def summary(self) -> str:
        """A table of layers: name, type, output shape, parameters, rule in either rule set."""
        shapes = self.shapes()
        rows = [("layer", "type", "output", "shape", "parameters", *RULE_SETS)]
        for node, row in zip(self.graph.nodes, self.explain_support(), strict=True):
            count = sum(param.numel() for param in node.params.values())
            shape = "x".join(map(str, shapes[node.outputs[0]][1:]))
            rules = [row[name] or "missing" for name in RULE_SETS]
            rows.append((node.name, row["type"], node.outputs[0], shape, f"{count:,}" if count else "", *rules))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Net {self.graph.origin}: {len(self.graph.nodes)} layers, inputs {self.graph.inputs}>"


def _dim_text(axis: int, length: int | None) -> str:
    """How a message writes a declared dim."""
    if length is not None:
        return str(length)
    return "N" if axis == 0 else "any"


def load(path: str | Path, weights: str | Path | None = None, **options: Any) -> Net:
    """A network from `net.onnx`, from `deploy.prototxt` and its `weights.caffemodel`, or from `program.pt2`.

    An archive of torch.export (.pt2) is read so that nothing in it can run. `ebp_cuda.models.open_model` takes names
    of networks besides.

    options: for a prototxt, the fields of `ebp_cuda.importers.caffe.ImportOptions`: phase, input_shapes, labels,
    preprocess, outputs, ignore_unknown, allow_missing, stored_statistics, seed.
    Raises ModelError where a file is missing, malformed or does not fit, UnsupportedError that lists every layer
    without an importer, InputError for options of a .onnx or .pt2 file.
    """
    from .importers.onnx import load_onnx

    path = Path(path)
    if path.suffix in (".onnx", ".pt2"):
        if weights is not None or options:
            options_text = ", ".join([*(["weights"] if weights is not None else []), *options])
            raise InputError(f"{path} is complete in itself; {options_text} was given as well")
        if path.suffix == ".onnx":
            return Net(load_onnx(path))
        from .importers.torch import from_archive

        return Net(from_archive(path))
    if path.suffix in (".prototxt", ".pt", ".txt") or weights is not None:
        from .importers.caffe import ImportOptions, import_net

        imported = import_net(path, weights, ImportOptions(**options))
        graph = load_onnx(imported.model, imported.tensors)
        graph.meta["origin"] = str(path)
        return Net(graph)
    raise ModelError(f"{path}: wanted a .onnx file, or a .prototxt with its .caffemodel, or a .pt2 archive")


def from_torch(
    module: torch.nn.Module,
    example_input: ExampleInput,
    *more_inputs: torch.Tensor,
    check_weights: str = "sampled",
    **options: Any,
) -> Net:
    """A network from a torch module in evaluation mode (whatever mode it is in), read through torch.export; the module
    stays as it is.

    The network shares the module's weights, and what changes in them is seen at the next call (docs/backend.md,
    "Weights that change").

    Args:
        module: any module whose operations have counterparts.
        example_input: float tensor [N, C, ...], a sequence of tensors for several inputs, or a dict of them by name.
        *more_inputs: of a module with several, the other ones, in place of a sequence.
        check_weights: "sampled": single elements that were written by `.data` or NumPy, which torch does not count, are
            seen after `Net.refresh`. "all": they too are seen at every call, which reads all weights for that.
        **options: labels (list of class names), preprocess (dict), any_size (True: images of other heights and widths).

    Raises:
        UnsupportedError: lists every operator without a converter; for its other reasons and other errors see
            `ebp_cuda.importers.torch.from_module`.
    """
    from .importers.torch import from_module

    if isinstance(example_input, torch.Tensor) and more_inputs:
        example_input = (example_input, *more_inputs)
    net = Net(from_module(module, example_input, **options), check_weights)
    net._module = ref(getattr(module, "_orig_mod", module))
    return net


def example_like(module: torch.nn.Module, x: Input) -> ExampleInput:
    """What a module is read with, from the first inputs that it gets: tensors beside its weights. Raises InputError."""
    weight = next(module.parameters(), torch.zeros(()))

    def tensor(array: ArrayLike) -> torch.Tensor:
        try:
            return to_tensor(array).to(weight.device, weight.dtype)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise InputError(f"x is a {type(array).__name__}; wanted an array [N, C, ...] ({error})") from None

    if isinstance(x, Mapping):
        return {name: tensor(array) for name, array in x.items()}
    if isinstance(x, tuple):
        return tuple(map(tensor, x))
    return tensor(x)


def as_net(model: Net | torch.nn.Module, x: ArrayLike) -> Net:
    """`model` itself if it is a Net, else the module imported for inputs like x."""
    if isinstance(model, Net):
        return model
    if isinstance(model, torch.nn.Module):
        return from_torch(model, to_tensor(x))
    raise InputError(f"model is a {type(model).__name__}; wanted an ebp_cuda Net or a torch.nn.Module")
