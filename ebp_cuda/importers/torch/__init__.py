"""Torch modules through torch.export: `from_module` and `from_archive` give their `Graph`."""

from .importer import from_archive, from_module

__all__ = ["from_archive", "from_module"]
