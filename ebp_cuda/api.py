"""Attribution maps: the class `ExcitationBackprop`, and one function each for MWP and c-MWP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import engine
from .engine import Trace
from .engine.budget import Account, Chunks, account_of, block_of, bytes_of, in_parts
from .engine.capture import Recordings, Tensors, recorder_of
from .engine.condition import mass_left, warn_where_lost
from .engine.plan import Route
from .errors import InputError, ShapeError, UnsupportedError, is_out_of_memory
from .interop import like
from .net import ArrayLike, Net, as_net
from .rules.relevance import Relevance
from .targets import Choice, Target, choice_of, class_seed

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Input name and shape, of every input."""

Form = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(relevance p of the layer [N*K, ...], targets [N, K]) -> what is wanted of it, [N, K, ...]."""


@dataclass(frozen=True)
class Attribution:
    """What one call measured: tensors, or arrays of the kind that the input was."""

    maps: torch.Tensor
    """[N, K, h, w]: relevance at the layer, summed over its channels; raw, unclipped, not normalised."""
    targets: torch.Tensor
    """int64 [N, K]: the classes."""
    scores: torch.Tensor
    """float32 [N, classes]: the top's activation; the maximum over positions where the top is spatial."""
    mass_left: torch.Tensor
    """[N, K]: sum |p| at the layer over that at the contrast layer (the top, without one): what `dtype` must carry."""


class ExcitationBackprop:
    """Excitation Backprop (Zhang et al., ECCV 2016) of one network at one layer, set up once for many images.

    net: from `load` or `from_torch`.
    layer: where the map is read: a blob, layer or module name.
    contrast_layer: None for MWP; for c-MWP the layer at which what excites everything else is subtracted, usually the
        one below the classifier (pool5/7x7_s1 in GoogLeNet, fc7 in VGG16).
    rules: "caffe" equals the original; "conserving" loses no probability (docs/rules.md).
    dtype: "fp32" or "fp64" (or the torch dtype); "tf32" or "bf16" for tensor cores, whose maps differ by up to 1e-3 or
        1e-2 (docs/precision.md). Warns once (PrecisionWarning) where a contrast leaves less than it can carry.
    device: "cpu", "cuda", "cuda:1" ...
    top: the layer that holds the class scores; by default the network's only output, above its softmax or sigmoid.
    graphs: "auto": on CUDA, what is asked for a second time with the same shapes is recorded as a CUDA graph, and from
        then on replayed, to the same bits; `why_not_captured` says where that cannot be. True: UnsupportedError there.
        False: never. After weights were written to, a recording is made anew (docs/gpu.md).
    max_memory: bytes, or such as "2GB", that a call may take beside the weights and its result; larger ones run in
        parts of fewer images, or of fewer classes of one image (`chunks` says how). None: all at once.

    Raises InputError (unknown name, a layer that does not lie below the top) and UnsupportedError that lists every
    layer on the way without a rule.
    """

    def __init__(
        self,
        net: Net,
        layer: str,
        contrast_layer: str | None = None,
        rules: str = "caffe",
        dtype: str | torch.dtype = "fp32",
        device: str | torch.device = "cpu",
        top: str | None = None,
        graphs: bool | str = "auto",
        max_memory: int | str | None = None,
    ) -> None:
        self.net, self.layer, self.contrast_layer, self.top = net, layer, contrast_layer, top
        self.plan = net.plan(rules, device, dtype)
        graph = self.plan.graph
        self._top = graph.resolve(top)[-1] if top is not None else net.default_top()
        self._value = graph.resolve(layer)[0]
        self._contrast = graph.resolve(contrast_layer)[0] if contrast_layer is not None else None
        route = self._route
        if self._contrast is not None:
            self._check_contrast(self._contrast)
        stages = self.plan.stages(route.keep | {self._top}, route.nodes)
        self._state = self.plan.watch([stage.index for stage in stages])
        self._recordings, self._why_never = _recordings(graphs, self.plan.device)
        self._warned = False
        self.max_memory = None if max_memory is None else bytes_of(max_memory)
        self._accounts: dict[Shapes, Account] = {}

    @property
    def _route(self) -> Route:
        """The way down; asked for at every pass, since a rule that was registered since may read other values."""
        return self.plan.route([self._top], [self._value])

    def _check_contrast(self, contrast: str) -> None:
        self.plan.route([contrast], [self._value])
        between = self.plan.route([self._top], [contrast]).nodes
        if not self.plan.classifiers(self._top).intersection(between):
            raise InputError(
                f"contrast_layer='{self.contrast_layer}': no layer with weights lies between it and the top "
                f"'{self._top}'; wanted one below the classifier"
            )

    def attribute(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> torch.Tensor:
        """Attribution maps [N, K, h, w], float32 (or the chosen dtype): raw sums over channels, unclipped.

        x: [N, C, H, W], or a dict by input name: torch tensors, NumPy arrays or CuPy arrays, whose memory is used as it
        is. What comes back, here and from `run` and `relevance`, is of the same kind.
        target: a class for all images; a list or tensor [N], one per image; a tensor [N, K]; "top5" for the five
        highest scores of each image; "all". Raises InputError and ShapeError.
        """
        return self.run(x, target).maps

    def run(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> Attribution:
        """Maps with the targets and the scores of the same forward pass."""
        inputs = self.net.check_inputs(x)
        found = self._in_parts(inputs, choice_of(target, _images(inputs)), self._maps)
        return Attribution(*(like(x, tensor) for tensor in found))

    def relevance(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> torch.Tensor:
        """Relevance p of every unit of the layer, [N, K, C, h, w] (or [N, K, features])."""
        inputs = self.net.check_inputs(x)
        found = self._in_parts(inputs, choice_of(target, _images(inputs)), _units)
        return like(x, found[0])

    def chunks(self, shape: Sequence[int] | Mapping[str, Sequence[int]], classes: int) -> Chunks:
        """How a call for an input of this shape [N, C, H, W] (a dict by name, where there are several) and for so many
        classes of each image is split under max_memory: images and classes at a time, and the estimated bytes.
        Raises InputError where max_memory is too little for one class of one image."""
        wanted = self.net.graph.inputs
        named = shape if isinstance(shape, Mapping) else {next(iter(wanted)): shape}
        if set(named) != set(wanted):
            raise InputError(f"chunks: got shapes for {', '.join(named)}; wanted one for each of {', '.join(wanted)}")
        return self._chunks(tuple((name, tuple(named[name])) for name in wanted), classes)[0]

    def _chunks(self, shapes: Shapes, classes: int) -> tuple[Chunks, int]:
        """The split of a call for `classes` classes (0 for all) and how many there are."""
        one = tuple((name, shape[1:]) for name, shape in shapes)
        if one not in self._accounts:
            self._accounts[one] = account_of(self.plan, dict(shapes), self._top, self._contrast, self._value)
        account, images = self._accounts[one], shapes[0][1][0]
        count = classes or account.classes
        if self.max_memory is None:
            return Chunks(images, count, account.peak(images, count)), account.classes
        return account.split(images, count, self.max_memory), account.classes

    def _in_parts(self, inputs: Mapping[str, torch.Tensor], choice: Choice, form: Form) -> Tensors:
        """`_measure`, in parts where max_memory asks for that."""
        if self.max_memory is None:
            return self._measure(inputs, choice, form)
        chunks, classes = self._chunks(tuple((name, tuple(x.shape)) for name, x in inputs.items()), choice.count)
        return in_parts(chunks, inputs, choice, classes, lambda part, chosen: self._measure(part, chosen, form))

    @property
    def why_not_captured(self) -> str:
        """Why the last call was not replayed as a CUDA graph and will not be; "" where it was, or where it may be once
        a call of its shapes comes again."""
        return self._recordings.why_not if self._recordings is not None else self._why_never

    def _judge(self, left: torch.Tensor) -> None:
        """Warns once where the precision cannot carry what the contrast left; float32 on CUDA does not wait to ask."""
        plan = self.plan
        if self._contrast is None or self._warned or plan.dtype == torch.float64:
            return
        if left.is_cpu or (left.is_cuda and plan.precision != "fp32"):
            self._warned = warn_where_lost(left, plan.precision, self.layer)

    def _measure(self, inputs: Mapping[str, torch.Tensor], choice: Choice, form: Form) -> Tensors:
        """What `form` makes of the relevance, targets [N, K], scores, and mass left; replayed where recorded."""
        try:
            return self._replayed(inputs, choice, form)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            what = f"{_images(inputs)} images, {choice.count or 'all'} classes of each"
            reason = str(error).splitlines()[0]
            raise UnsupportedError(f"{what}: out of memory, try fewer images or max_memory=: {reason}") from error

    def _replayed(self, inputs: Mapping[str, torch.Tensor], choice: Choice, form: Form) -> Tensors:
        if self._recordings is None:
            return self._eager(inputs, choice, form)
        shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
        key, state = (form.__name__, shapes, choice.kind, choice.count, _settings()), self._state()
        given = (*inputs.values(), *(() if choice.given is None else (choice.given,)))
        run = self._recordings.find(key, state)
        if run is not None:
            choice.check(run.results[2].shape[1])
            return run(given)

        def work(*own: torch.Tensor) -> Tensors:
            chosen = choice if choice.given is None else replace(choice, given=own[-1])
            return self._propagate(dict(zip(inputs, own, strict=False)), chosen, form)

        def placed() -> Tensors:
            targets = () if choice.given is None else (choice.given.to(self.plan.device),)
            return (*map(self.plan.place, inputs.values()), *targets)

        found = self._eager(inputs, choice, form)
        self._recordings.learn(key, state, placed, work)
        return found

    def _eager(self, inputs: Mapping[str, torch.Tensor], choice: Choice, form: Form) -> Tensors:
        found = self._propagate(inputs, choice, form)
        self._judge(found[3])
        return found

    def _propagate(self, inputs: Mapping[str, torch.Tensor], choice: Choice, form: Form) -> Tensors:
        """The whole computation, launch by launch; reads nothing back from the device unless a rule does."""
        trace, scores = self._forward(inputs)
        choice.check(scores.shape[1])
        targets = choice.of(scores)
        block = block_of(self.plan, trace, self._route.nodes, targets.shape[1])
        parts = [self._down(trace, part, form) for part in targets.split(block, 1)]
        found, left = parts[0] if len(parts) == 1 else (torch.cat(group, 1) for group in zip(*parts, strict=True))
        return found, targets, scores.float(), left

    def _down(self, trace: Trace, targets: torch.Tensor, form: Form) -> tuple[torch.Tensor, torch.Tensor]:
        """What `form` makes of the relevance of some classes of every image, and the mass left of each."""
        relevance, start = self._sweep(trace, targets)
        p = relevance.p()
        return form(p, targets), mass_left(p, start).reshape(targets.shape)

    def _maps(self, p: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Relevance summed over the channels, [N, K, h, w]."""
        if p.dim() != 4:
            shape = list(p.shape[1:])
            raise ShapeError(f"layer '{self.layer}' has no plane to map (its shape is [N] + {shape}): use relevance()")
        return p.sum(1).reshape(*targets.shape, *p.shape[2:])

    def _forward(self, inputs: Mapping[str, torch.Tensor]) -> tuple[Trace, torch.Tensor]:
        route = self._route
        trace = engine.forward(self.plan, inputs, route.keep | {self._top}, route.nodes)
        top, images = trace.values[self._top], _images(inputs)
        if top.dim() < 2 or top.shape[0] != images:
            wanted = f"[{images}, classes] or [{images}, classes, h, w]"
            raise ShapeError(f"top '{self._top}' has shape {list(top.shape)}, wanted {wanted}")
        return trace, top if top.dim() == 2 else top.flatten(2).amax(2)

    def _sweep(self, trace: Trace, targets: torch.Tensor) -> tuple[Relevance, Relevance]:
        """The relevance of the layer, and that of the contrast layer (or the top), which it came from."""
        seed = Relevance(class_seed(trace.values[self._top], targets))
        if self._contrast is None:
            return engine.sweep(self.plan, trace, self._route, {self._top: seed}, [self._value])[self._value], seed
        found = engine.contrastive_sweep(self.plan, trace, self._top, seed, self._contrast, [self._value])
        return found[self._value], found[self._contrast]


def _units(p: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Relevance of every unit, [N, K, C, ...]."""
    return p.reshape(*targets.shape, *p.shape[1:])


def _recordings(graphs: bool | str, device: torch.device) -> tuple[Recordings | None, str]:
    """Where runs are recorded, or why nowhere."""
    if graphs not in (True, False, "auto"):
        raise InputError(f"graphs={graphs!r}: wanted 'auto', True or False")
    recorder = recorder_of(device) if graphs else None
    if recorder is not None:
        return Recordings(recorder, always=graphs is True), ""
    if graphs is True:
        raise UnsupportedError(f"graphs=True: device='{device}' has no CUDA graphs")
    return None, f"device='{device}' has no CUDA graphs" if graphs else "graphs=False"


def _images(inputs: Mapping[str, torch.Tensor]) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _settings() -> tuple[object, ...]:
    """The process's settings that choose among torch's kernels, apart from those that a pass overrides (ops.modes)."""
    return torch.backends.cudnn.enabled, torch.are_deterministic_algorithms_enabled()


def excitation_backprop(
    model: Net | torch.nn.Module, x: ArrayLike, target: Target, layer: str, **options: Any
) -> torch.Tensor:
    """MWP maps [N, K, h, w] of a Net or torch module at `layer`; options as for ExcitationBackprop."""
    return ExcitationBackprop(as_net(model, x), layer, **options).attribute(x, target)


def contrastive_excitation_backprop(
    model: Net | torch.nn.Module, x: ArrayLike, target: Target, layer: str, contrast_layer: str, **options: Any
) -> torch.Tensor:
    """c-MWP maps [N, K, h, w] of a Net or torch module at `layer`; options as for ExcitationBackprop."""
    return ExcitationBackprop(as_net(model, x), layer, contrast_layer, **options).attribute(x, target)
