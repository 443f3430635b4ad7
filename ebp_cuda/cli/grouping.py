"""Groups of options: a command takes a dataclass, and every field of it is an option of its own on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import OptionInfo


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as typer wants it: parameters that are dataclasses of options are replaced by their fields."""
    hints = {name: _annotated(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    flat: list[Parameter] = []
    for name, own in signature(function).parameters.items():
        if name in groups:
            flat += _options(groups[name])
        else:
            flat.append(own.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @wraps(function)
    def command(**arguments: Any) -> None:
        for name, group in groups.items():
            arguments[name] = group(**{field.name: arguments.pop(field.name) for field in fields(group)})
        function(**arguments)

    command.__signature__ = Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in flat}
    return command


def _annotated(hint: Any) -> Any:
    """The hint without the `| None` that Python 3.10 puts around it where None is the default: typer reads what is
    annotated on the outside only."""
    inner, *others = get_args(hint) or (hint,)
    return inner if others == [type(None)] and get_origin(inner) is Annotated else hint


def _options(group: Any) -> list[Parameter]:
    """The fields of a group; in the help they stand in a panel of the name that the group's PANEL says."""
    hints = get_type_hints(group, include_extras=True)
    for hint in hints.values():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, OptionInfo) and extra.rich_help_panel is None:
                extra.rich_help_panel = getattr(group, "PANEL", None)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
