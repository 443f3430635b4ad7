"""NetSpec: networks written in Python, one call a layer, turned into a prototxt.

    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 224, 224]))
    n.conv1 = L.Convolution(n.data, num_output=64, kernel_size=7, stride=2)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    text = str(n.to_proto())

The attribute's name becomes the name of the layer and of its top; an in-place layer writes its bottom's blob.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from ...errors import InputError, nearest_names
from .proto import caffe_pb2

_LAYER = caffe_pb2.LayerParameter.DESCRIPTOR
_SETTINGS = {
    field.message_type.name.removesuffix("Parameter"): field.name
    for field in _LAYER.fields
    if field.name.endswith("_param") and field.message_type is not None
}
"""Layer type -> the field with its settings; types that go by another's are in _ALSO."""
_ALSO = {"Deconvolution": "Convolution"}


class Top:
    """An output of a layer, to be handed to other layers."""

    def __init__(self, layer: LayerCall, index: int) -> None:
        self.layer, self.index = layer, index

    def to_proto(self) -> Any:
        """The network that ends here."""
        return to_proto(self)


class LayerCall:
    """One layer: its type, the tops it reads, its settings."""

    def __init__(self, kind: str, bottoms: tuple[Any, ...], settings: dict[str, Any]) -> None:
        for bottom in bottoms:
            if not isinstance(bottom, Top):
                raise InputError(f"layers.{kind}: a bottom is a {type(bottom).__name__}; wanted what a layer returned")
        self.kind, self.bottoms = kind, bottoms
        self.in_place = bool(settings.pop("in_place", False))
        self.count = int(settings.pop("ntop", 1))
        self.settings = settings
        self.tops = tuple(Top(self, index) for index in range(self.count))


class Layers:
    """`layers.Convolution(bottom, num_output=64, ...)` for every layer type: one Top, or a tuple with ntop=2 or 0."""

    def __getattr__(self, kind: str) -> Any:
        if kind.startswith("_"):
            raise AttributeError(kind)

        def call(*bottoms: Any, **settings: Any) -> Any:
            made = LayerCall(kind, bottoms, settings)
            return made.tops[0] if made.count == 1 else made.tops if made.count else made

        return call


class Parameters:
    """`params.Pooling.MAX`: the values of a layer type's enums."""

    def __getattr__(self, kind: str) -> Any:
        found = getattr(caffe_pb2, f"{kind}Parameter", None) if not kind.startswith("_") else None
        if found is None:
            raise AttributeError(f"no parameters '{kind}'{nearest_names(kind, _SETTINGS)}")
        return found


layers, params = Layers(), Parameters()


class NetSpec:
    """A network under construction: what is assigned to it becomes layers, named after the attribute."""

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return self.tops[name]
        except KeyError:
            raise AttributeError(f"NetSpec has no '{name}'{nearest_names(name, self.tops)}") from None

    __setitem__ = __setattr__
    __getitem__ = __getattr__

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    __delitem__ = __delattr__

    def keys(self) -> list[str]:
        return list(self.tops)

    def to_proto(self) -> Any:
        """The NetParameter with the layers of all that was assigned. Raises InputError for an unknown setting."""
        return _Writer({top: name for name, top in self.tops.items()}).net(self.tops.values())


def to_proto(*tops: Top) -> Any:
    """The NetParameter of the layers that `tops` need, named Convolution1, Convolution2, ReLU1, ..."""
    return _Writer({}).net(tops)


class _Writer:
    def __init__(self, names: Mapping[Any, str]) -> None:
        self.names = dict(names)
        self.numbers: Counter[str] = Counter()
        self.protos: OrderedDict[LayerCall, Any] = OrderedDict()

    def net(self, tops: Any) -> Any:
        for top in tops:
            self.write(top.layer if isinstance(top, Top) else top)
        message = caffe_pb2.NetParameter()
        message.layer.extend(self.protos.values())
        return message

    def name(self, thing: Top | LayerCall, kind: str) -> str:
        if thing not in self.names:
            self.numbers[kind] += 1
            self.names[thing] = f"{kind}{self.numbers[kind]}"
        return self.names[thing]

    def write(self, call: LayerCall) -> None:
        if call in self.protos:
            return
        for bottom in call.bottoms:
            self.write(bottom.layer)
        proto = caffe_pb2.LayerParameter(type=call.kind)
        proto.bottom.extend(self.protos[bottom.layer].top[bottom.index] for bottom in call.bottoms)
        proto.top.extend(proto.bottom if call.in_place else [self.name(top, call.kind) for top in call.tops])
        proto.name = self.name(call.tops[0] if call.tops else call, call.kind)
        for key, value in call.settings.items():
            _assign(_holder(proto, call.kind, key), key, value, f"layers.{call.kind}({key}=...)")
        self.protos[call] = proto


def _holder(proto: Any, kind: str, key: str) -> Any:
    """The message that a setting belongs to: the layer's own, or that of its type."""
    settings = _SETTINGS.get(_ALSO.get(kind, kind))
    of_layer = key in proto.DESCRIPTOR.fields_by_name
    if settings is None or (of_layer and key not in getattr(proto, settings).DESCRIPTOR.fields_by_name):
        return proto
    return getattr(proto, settings)


def _assign(message: Any, key: str, value: Any, where: str) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    if key not in fields:
        raise InputError(f"{where}: {message.DESCRIPTOR.name} has no '{key}'{nearest_names(key, fields)}")
    target = getattr(message, key)
    try:
        if hasattr(target, "extend"):
            items = value if isinstance(value, (list, tuple)) else [value]
            for item in items:
                if isinstance(item, Mapping):
                    _fill(target.add(), item, where)
                else:
                    target.append(item)
        elif isinstance(value, Mapping):
            target.SetInParent()
            _fill(target, value, where)
        else:
            setattr(message, key, value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def _fill(message: Any, values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        _assign(message, key, value, where)
