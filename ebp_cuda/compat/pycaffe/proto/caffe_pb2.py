"""The messages of Caffe's model files under the names that protoc gives them: NetParameter, LayerParameter, ...

Solver messages and data source options are not among them (importers/caffe/schema.py says what is). Fields of an
enum take its numbers; the names stand where Caffe has them: `PoolingParameter.MAX`, `TEST`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory

from ....importers.caffe.schema import NetParameter as NetParameter

_FILE = NetParameter.DESCRIPTOR.file
_TOP_LEVEL = ("Phase",)


def _messages() -> dict[str, Any]:
    return {
        name: message_factory.GetMessageClass(kind)
        for name, kind in _FILE.message_types_by_name.items()
        if not kind.enum_types
    }


def _put_enums(messages: dict[str, Any]) -> dict[str, int]:
    """The values of each enum on the messages that use it; returns those that Caffe has outside of any message."""
    outside: dict[str, int] = {}
    for message in messages.values():
        for field in message.DESCRIPTOR.fields:
            if field.enum_type is None:
                continue
            for value in field.enum_type.values:
                if field.enum_type.name in _TOP_LEVEL:
                    outside[value.name] = value.number
                else:
                    setattr(message, value.name, value.number)
    return outside


_MESSAGES = _messages()
globals().update(_MESSAGES, **_put_enums(_MESSAGES))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"caffe_pb2 has no '{name}': it holds the messages of model files, not of solvers")
