"""Torch modules through torch.export: `from_module` gives their `Graph`."""

from .importer import from_module

__all__ = ["from_module"]
