"""The copy of a module that is traced: new modules in evaluation mode, and the original's own tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...errors import ModelError, UnsupportedError
from .hooks import kept_hooks
from .messages import first_line


def shared_copy(module: nn.Module, origin: str) -> nn.Module:
    """A copy in evaluation mode whose modules are new and whose tensors share the memory of the module's.

    Args:
        module: left as it is.
        origin: what messages call it.

    Raises:
        ModelError: where the module cannot be copied.
        UnsupportedError: for quantized modules and for hooks that may change what a module gives.
    """
    memo: dict[int, Any] = {}
    for path, part in module.named_modules():
        _refuse_quantized(part, path, origin)
        for name, value in [*part._parameters.items(), *part._buffers.items(), *part.__dict__.items()]:
            if isinstance(value, torch.Tensor):
                _check_tensor(value, f"{path}.{name}" if path else name, origin)
                memo[id(value)] = _counted(value)
        memo.update((id(table), kept) for table, kept in kept_hooks(part, path or type(part).__name__, origin))
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:  # whatever a module's attributes raise when they are copied
        raise ModelError(f"{origin}: the module cannot be copied: {first_line(error)}") from error
    for part in twin.modules():
        part._compiled_call_impl = None  # of Module.compile()
        if type(part) in _NOTHING:
            part.forward = _pass  # the type stays: some networks ask for it
    return twin.eval()


def _counted(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or an ordinary one in the memory of one that was made under torch.inference_mode()."""
    if not tensor.is_inference():
        return tensor
    plain = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    plain.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
    return nn.Parameter(plain, requires_grad=False) if isinstance(tensor, nn.Parameter) else plain


def _refuse_quantized(part: nn.Module, path: str, origin: str) -> None:
    kind = type(part)
    if "quantized" in kind.__module__.split(".") or hasattr(part, "_packed_params"):
        raise UnsupportedError(
            f"{origin}: module '{path}' ({kind.__module__}.{kind.__name__}) is quantized, and no rule is defined for "
            "rounded integers; import the float module that it was made from"
        )


def _check_tensor(tensor: torch.Tensor, name: str, origin: str) -> None:
    if is_lazy(tensor):
        raise ModelError(f"{origin}: '{name}' is lazy and has no shape yet; run the module on an input once first")
    if tensor.is_quantized or is_traceable_wrapper_subclass(tensor):
        kind = tensor.dtype if tensor.is_quantized else type(tensor).__name__
        raise UnsupportedError(
            f"{origin}: '{name}' is {kind}, quantized or distributed; import the float module that it was made from"
        )
    if tensor.is_meta:
        raise ModelError(f"{origin}: '{name}' is on the meta device, so it has no numbers; load the weights first")
    if tensor.layout is not torch.strided:
        raise UnsupportedError(f"{origin}: '{name}' is sparse ({tensor.layout}), wanted a dense tensor (.to_dense())")


def _pass(x: torch.Tensor) -> torch.Tensor:
    """What modules that do nothing run in the copy: a value of its own, so that their paths have one."""
    return torch.ops.aten.alias.default(x)


_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
