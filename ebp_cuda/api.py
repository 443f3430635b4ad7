"""Attribution maps: the class `ExcitationBackprop`, and one function each for MWP and c-MWP."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from .attribution import Attribution, ClassesAt, Setting
from .engine.budget import Chunks, bytes_of
from .engine.calls import Calls, Request
from .engine.capture import recordings_for
from .engine.plan import Plan
from .engine.run import Measured, ReadOut, Walk, images_of
from .engine.shared_weights import checked_weights
from .engine.transposed import judge, transposed
from .errors import InputError
from .interop import goes_to_the_host, like
from .net import ArrayLike, ExampleInput, Input, Net, as_net, example_like, from_torch
from .places import UNSET, Layer, Places, Unset, places_for, rules_for
from .questions.asking import Asked, Context, question_of
from .questions.regions import Place, region_at
from .targets import Target

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ExcitationBackprop:
    """Excitation Backprop (Zhang et al., ECCV 2016) of one network at one layer, set up once for many images.

    With nothing but a network, rules, layer and contrast are chosen from it; `repr` and `setting` say which.

    Args:
        net: from `load` or `from_torch`, or a torch module, which is read at the first call or with `example`.
        layer: where the map is read: a blob, layer or module name, or the module itself. A list of them costs one
            sweep; then `attribute` gives a dict by layer name. None: the paper's of a network of the catalogue, else
            the end of the last block that every path to the classes crosses, with a plane of at least 12 pixels (see
            `Net.candidates`).
        contrast_layer: for c-MWP the layer at which what excites everything else is subtracted, usually the one below
            the classifier (pool5/7x7_s1 in GoogLeNet, fc7 in VGG16). None: MWP. "auto": the input of the last layer
            with weights. By default "auto" where the layer is chosen too, and None where it is named.
        rules: "caffe" equals the original; "conserving" loses no probability (docs/rules.md). "auto": "caffe" for a
            network that came from Caffe, also by way of an ONNX file, else "conserving".
        dtype: "fp32" or "fp64" (or the torch dtype); "tf32" or "bf16" for tensor cores, whose maps differ by up to 1e-3
            or 1e-2 (docs/precision.md). Warns once (PrecisionWarning) where a contrast leaves less than it can carry.
        device: "cpu", "cuda", "cuda:1" ...; None: that of a torch module's weights, else "cpu".
        top: the layer that holds the class scores; by default the network's only output, above its softmax or sigmoid.
        graphs: "auto": on CUDA, what is asked for a second time with the same shapes is recorded as a CUDA graph, and
            from then on replayed, to the same bits; `why_not_captured` says where that cannot be. True:
            UnsupportedError there. False: never. After weights were written to, a recording is made anew (docs/gpu.md).
        max_memory: bytes, or such as "2GB", that a call may take beside the weights and its result; larger ones run in
            parts of fewer images, or of fewer classes of one image (`chunks` says how). None: all at once.
        check_weights: "sampled" or "all", how closely calls look for changed weights of a torch module (see
            `from_torch`). None: as the network does.
        example: what a torch module is read with, as `from_torch` takes it.
        labels: names of the classes, which are targets then; by default the network's own.

    Raises:
        InputError: unknown name, a layer that does not lie below the top, nothing to choose from.
        UnsupportedError: lists every layer on the way without a rule.
    """

    def __init__(
        self,
        net: Net | torch.nn.Module,
        layer: Layer | Sequence[Layer] | None = None,
        contrast_layer: Layer | Unset | None = UNSET,
        rules: str = "auto",
        dtype: str | torch.dtype = "fp32",
        device: str | torch.device | None = None,
        top: str | None = None,
        graphs: bool | str = "auto",
        max_memory: int | str | None = None,
        check_weights: str | None = None,
        *,
        example: ExampleInput | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.check_weights = None if check_weights is None else checked_weights(check_weights)
        self.max_memory = None if max_memory is None else bytes_of(max_memory)
        self.top, self.labels = top, None if labels is None else list(labels)
        self._asked = (layer, contrast_layer, rules, dtype, device, graphs)
        self._lock = threading.Lock()
        self._net: Net | None = None
        if isinstance(net, Net):
            self._set_up(net)
            return
        if not isinstance(net, torch.nn.Module):
            raise InputError(f"net is a {type(net).__name__}; wanted a Net (ebp_cuda.load) or a torch.nn.Module")
        self._module = net
        if example is not None:
            self._set_up(from_torch(net, example))

    def _set_up(self, net: Net) -> None:
        layer, contrast_layer, rules, dtype, device, graphs = self._asked
        if device is None:
            weight = next(net.module.parameters(), None) if net.module is not None else None
            device = "cpu" if weight is None else weight.device
        if self.top is not None and not isinstance(self.top, str):
            raise InputError(f"top={self.top!r}: wanted a layer's name")
        self._plan = net.plan(rules_for(net, rules, layer is not None), device, dtype)
        graph = self._plan.graph
        top = graph.resolve(self.top)[-1] if self.top is not None else net.default_top()
        self.places: Places = places_for(net, self._plan, top, layer, contrast_layer)
        contrast = self.places.contrast_layer
        walk = Walk(
            self._plan,
            top=top,
            values=tuple(graph.resolve(name)[0] for name in self.places.layers),
            contrast=graph.resolve(contrast)[0] if contrast is not None else None,
        )
        walk.check()
        recordings, self._why_never = recordings_for(graphs, self._plan.device)
        self._calls = Calls(walk, self.places.layers, recordings, self.max_memory)
        self._several = isinstance(layer, (list, tuple))
        self._net = net

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles (joblib, spawn, Ray) hold the arguments, and are set up anew where they arrive."""
        layer, contrast_layer, rules, dtype, device, graphs = self._asked
        if self._net is not None:  # what was chosen stays chosen
            layer = list(self.places.layers) if self._several else self.places.layers[0]
            contrast_layer, rules = self.places.contrast_layer, self.plan.rules
        arguments = self.network, layer, contrast_layer, rules, dtype, device, self.top, graphs, self.max_memory
        return partial(type(self), labels=self.labels), (*arguments, self.check_weights)

    def _read(self, x: Input) -> Net:
        """The network, read from the module for inputs like x where that has not happened yet."""
        with self._lock:
            if self._net is None:
                self._set_up(from_torch(self._module, example_like(self._module, x)))
        return self.net

    @property
    def net(self) -> Net:
        """The network. Raises InputError where a torch module was not read yet."""
        if self._net is None:
            kind = type(self._module).__name__
            raise InputError(f"{kind} has not been read yet: call `attribute` first, or give an example= of its input")
        return self._net

    @property
    def network(self) -> Net | torch.nn.Module:
        """The network, or the torch module that has not been read yet."""
        return self._module if self._net is None else self._net

    @property
    def plan(self) -> Plan:
        """Its parameters on the device, by the rules that were chosen; raises as `net`."""
        self.net  # noqa: B018 - raises where there is none
        return self._plan

    @property
    def calls(self) -> Calls:
        """Runs what the methods here ask for; takes an observer besides (`ebp_cuda.cli.profile`). Raises as `net`."""
        self.net  # noqa: B018 - raises where there is none
        return self._calls

    @property
    def setting(self) -> Setting:
        """The layer, contrast layer and rules that are used; raises as `net`."""
        plan, places = self.plan, self.places
        layer = places.layers if self._several else places.layers[0]
        return Setting(layer, places.contrast_layer, plan.rules)

    @property
    def layer(self) -> str:
        """The layer's name, or names joined by commas; raises as `net`."""
        return ",".join(self.places.layers) if self.net is not None else ""

    @property
    def contrast_layer(self) -> str | None:
        """The contrast layer's name; raises as `net`."""
        return self.places.contrast_layer if self.net is not None else None

    def __repr__(self) -> str:
        if self._net is None:
            return f"<ExcitationBackprop of {type(self._module).__name__}, which is read at the first call>"
        setting, chosen = self.setting, self.places.chosen
        own = {name: " (chosen)" if name in chosen else "" for name in ("layer", "contrast_layer")}
        rules = f"'{setting.rules}'{' (auto)' if self._asked[2] == 'auto' else ''}"
        at = f"layer={setting.layer!r}{own['layer']}"
        contrast = f"contrast_layer={setting.contrast_layer!r}{own['contrast_layer']}"
        return (
            f"<ExcitationBackprop of {self.net.graph.origin}: {at}, {contrast}, rules={rules}, on {self.plan.device}>"
        )

    def attribute(self, x: Input, target: Target = "top1", **asked: Unpack[Asked]) -> torch.Tensor:
        """Attribution maps: raw sums of relevance over channels, unclipped.

        Args:
            x: [N, C, H, W], or a dict by input name: torch tensors, NumPy arrays or CuPy arrays, whose memory is used
                as it is. What comes back, here and from `run` and `relevance`, is of the same kind.
            target: a class for all images; a list or tensor [N], one per image; a tensor [N, K]; "top5" for the five
                highest scores of each image; "all". Names of classes where the labels are known.
            **asked: pixel, box or mask of a top with positions; similarity_to or seed in place of classes; contrast,
                other and percentile: see `Asked` (docs/questions.md).

        Returns:
            float32 (or the chosen dtype) [N, K, h, w]; [N, K, L] of a sequence, [N, K, t, h, w] of a volume. Of a list
            of layers a dict by layer name.

        Raises:
            InputError: a class that the model lacks, values that are not finite.
            ShapeError: x does not fit the network, or the layer has no plane.
            NumericError: the relevance is not finite; names the first layer.
        """
        return self.run(x, target, **asked).maps

    def run(self, x: Input, target: Target = "top1", **asked: Unpack[Asked]) -> Attribution:
        """Maps with the targets and the scores of the same forward pass; arguments and errors as for `attribute`."""
        measured = self._call(x, target, "maps", asked)
        maps, left = self._of_layers(x, measured.readouts), self._of_layers(x, measured.mass_left)
        return Attribution(maps, like(x, measured.targets), like(x, measured.scores), left, self.setting)

    def relevance(self, x: Input, target: Target = "top1", **asked: Unpack[Asked]) -> torch.Tensor:
        """Relevance p of every unit of the layer, [N, K, C, h, w] (or [N, K, features]); else as `attribute`."""
        return self._of_layers(x, self._call(x, target, "units", asked).readouts)

    def classes_at(self, x: Input, place: Place) -> ClassesAt:
        """Which classes have their attention at a place of the map: all of them, by one sweep from the place upwards.

        What every class leaves at the place equals, to rounding, the weighted sum of its map there; the maps of all
        classes cost as many columns as there are classes, this one forward pass and two sweeps of one column. It takes
        the memory of both, for all images at once: max_memory does not split it.

        Args:
            x: as for `attribute`.
            place: in positions of the map (`maps.shape[2:]` of `run`), counted from 0: a pixel (row, column); a box
                (top, left, bottom, right), bottom and right behind the last position; or an array [h, w] that weighs
                every position, one [N, h, w] for each image. A sequence has (position,) and (start, end), a volume
                three numbers and six.

        Returns:
            The classes ranked by share, with their lift over the mean, for each image.

        Raises:
            InputError: a place outside of the map, more than one layer. ShapeError: an array of another shape.
            UnsupportedError: a rule of your own that autograd cannot follow.
        """
        net = self._net or self._read(x)
        if len(self.places.layers) > 1:
            raise InputError(f"classes_at: got {len(self.places.layers)} layers ({self.layer}); wanted one")
        inputs, walk, name = net.check_inputs(x, self.check_weights), self.calls.walk, self.layer
        self.calls.log.raise_arrived()
        measured = transposed(walk, inputs, lambda plane: region_at(place, plane).weights(plane), name)
        title = f"classes_at, {images_of(inputs)} images"
        self.calls.log.enter(measured.status, title, None, lambda status, _: judge(walk, status, name))
        if goes_to_the_host(x, measured.scores):
            self.check()
        return ClassesAt.ranked(measured.shares, measured.scores, self.setting, lambda tensor: like(x, tensor))

    def _of_layers(self, x: Input, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The one layer's array; of a list of layers a dict, which is typed like an array for the sake of the many."""
        arrays = [like(x, tensor) for tensor in tensors]
        return cast(torch.Tensor, dict(zip(self.places.layers, arrays, strict=True)) if self._several else arrays[0])

    def _call(self, x: Input, target: Target, readout: ReadOut, asked: Asked) -> Measured:
        request = self.request(x, target, readout, **asked)
        measured = self.calls(request)
        if goes_to_the_host(x, measured.scores):
            self.check()
        return measured

    def request(self, x: Input, target: Target, readout: ReadOut = "maps", **asked: Unpack[Asked]) -> Request:
        """What a call with these arguments asks of `calls`. Raises InputError and ShapeError."""
        net = self._net or self._read(x)
        inputs = net.check_inputs(x, self.check_weights)
        calls, contrasted = self.calls, self.places.contrast_layer is not None
        context = Context(images_of(inputs), self.labels or net.labels, contrasted, lambda: calls.top_shape(inputs))
        return Request(inputs, question_of(target, asked, context), readout)

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


def excitation_backprop(
    model: Net | torch.nn.Module, x: ArrayLike, target: Target, layer: Layer, **options: Any
) -> torch.Tensor:
    """MWP maps of a network at one layer.

    Args:
        model: a Net, or a torch module, which is read for this call.
        x: [N, C, H, W], as for `ExcitationBackprop.attribute`, like `target`.
        target: the classes.
        layer: a name, or a module of the network.
        **options: as for `ExcitationBackprop`.

    Returns:
        Maps [N, K, h, w].
    """
    return ExcitationBackprop(as_net(model, x), layer, None, **options).attribute(x, target)


def contrastive_excitation_backprop(
    model: Net | torch.nn.Module, x: ArrayLike, target: Target, layer: Layer, contrast_layer: Layer, **options: Any
) -> torch.Tensor:
    """c-MWP maps [N, K, h, w] of a network at one layer; see `excitation_backprop` and `ExcitationBackprop`."""
    return ExcitationBackprop(as_net(model, x), layer, contrast_layer, **options).attribute(x, target)
