"""Attribution maps: the class `ExcitationBackprop`, and one function each for MWP and c-MWP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .engine.budget import Chunks, bytes_of
from .engine.calls import Calls, Request
from .engine.capture import Recordings, recorder_of
from .engine.run import Measured, ReadOut, Walk, images_of
from .engine.shared_weights import checked_weights
from .errors import InputError, UnsupportedError
from .interop import goes_to_the_host, like
from .net import ArrayLike, Net, as_net
from .targets import Target, choice_of


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
    check_weights: "sampled" or "all", how closely calls look for changed weights of a torch module (see `from_torch`).
        None: as the network does.

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
        check_weights: str | None = None,
    ) -> None:
        self.check_weights = None if check_weights is None else checked_weights(check_weights)
        self._arguments = (net, layer, contrast_layer, rules, dtype, device, top, graphs, max_memory, check_weights)
        self.net, self.layer, self.contrast_layer, self.top = net, layer, contrast_layer, top
        self.plan = net.plan(rules, device, dtype)
        graph = self.plan.graph
        walk = Walk(
            self.plan,
            top=graph.resolve(top)[-1] if top is not None else net.default_top(),
            values=(graph.resolve(layer)[0],),
            contrast=graph.resolve(contrast_layer)[0] if contrast_layer is not None else None,
        )
        walk.check()
        self.max_memory = None if max_memory is None else bytes_of(max_memory)
        recordings, self._why_never = _recordings(graphs, self.plan.device)
        self.calls = Calls(walk, [layer], recordings, self.max_memory)
        """Runs what the methods here ask for; takes an observer besides (`ebp_cuda.cli.profile`)."""

    def __reduce__(self) -> tuple[type[ExcitationBackprop], tuple[Any, ...]]:
        """Copies and pickles (joblib, spawn, Ray) hold the arguments, and are set up anew where they arrive."""
        return type(self), self._arguments

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
        measured = self._call(x, target, "maps")
        results = measured.readouts[0], measured.targets, measured.scores, measured.mass_left[0]
        return Attribution(*(like(x, tensor) for tensor in results))

    def relevance(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> torch.Tensor:
        """Relevance p of every unit of the layer, [N, K, C, h, w] (or [N, K, features])."""
        return like(x, self._call(x, target, "units").readouts[0])

    def _call(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target, readout: ReadOut) -> Measured:
        measured = self.calls(self.request(x, target, readout))
        if goes_to_the_host(x, measured.scores):
            self.check()
        return measured

    def request(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target, readout: ReadOut = "maps") -> Request:
        """What a call with these arguments asks of `calls`. Raises InputError and ShapeError."""
        inputs = self.net.check_inputs(x, self.check_weights)
        return Request(inputs, choice_of(target, images_of(inputs)), readout)

    def check(self) -> None:
        """Waits for all calls so far and raises what was wrong with one of them.

        Needed on a GPU only, where a call does not wait for the device: a NaN in an input there, a target there that is
        out of range, or a result that is not finite is raised by a later call, by this, or when results go to the host.
        Raises InputError or NumericError that says which call it was.
        """
        self.calls.log.check()
        self.net.check()

    def chunks(self, shape: Sequence[int] | Mapping[str, Sequence[int]], classes: int) -> Chunks:
        """How a call for an input of this shape [N, C, H, W] (a dict by name, where there are several) and for so many
        classes of each image is split under max_memory: images and classes at a time, and the estimated bytes.
        Raises InputError where max_memory is too little for one class of one image."""
        wanted = self.net.graph.inputs
        named = shape if isinstance(shape, Mapping) else {next(iter(wanted)): shape}
        if set(named) != set(wanted):
            raise InputError(f"chunks: got shapes for {', '.join(named)}; wanted one for each of {', '.join(wanted)}")
        return self.calls.chunks(tuple((name, tuple(named[name])) for name in wanted), classes)[0]

    @property
    def why_not_captured(self) -> str:
        """Why the last call was not replayed as a CUDA graph and will not be; "" where it was, or where it may be once
        a call of its shapes comes again."""
        recordings = self.calls.recordings
        return recordings.why_not if recordings is not None else self._why_never


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
