"""The operations that a graph may consist of: one table of their attributes, parameters, inputs and outputs.

`Node` checks itself against this table, `rules.register_operation` extends it, and the table in docs/models.md is
printed from it. An importer that writes a wrong name, or a list of names in the engine that has one too many, fails at
once with the nearest right names.
"""

from .signature import (
    BOOL,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    PAIRS,
    REQUIRED,
    Attribute,
    AttributeType,
    Parameter,
    Signature,
    one_of,
    optional,
    tuple_of,
)
from .table import SIGNATURES, operations, signature_of

__all__ = [
    "BOOL",
    "FLOAT",
    "FLOATS",
    "INT",
    "INTS",
    "PAIRS",
    "REQUIRED",
    "SIGNATURES",
    "Attribute",
    "AttributeType",
    "Parameter",
    "Signature",
    "one_of",
    "operations",
    "optional",
    "signature_of",
    "tuple_of",
]
