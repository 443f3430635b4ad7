"""Forward and top-down rule of every operation, by kind; `registry` is the table they all enter."""

from . import adaptive, contraction, eltwise, movement, picking, pointwise, pooling, statistics
from .registry import (
    KINDS,
    OPERATIONS,
    RULE_SETS,
    Forward,
    Operation,
    Rule,
    Step,
    check_rule_set,
    operation,
    register_operation,
    register_rule,
    registrations,
    rule_of,
)
from .saved import Saved

__all__ = [
    "KINDS",
    "OPERATIONS",
    "RULE_SETS",
    "Forward",
    "Operation",
    "Rule",
    "Saved",
    "Step",
    "adaptive",
    "check_rule_set",
    "contraction",
    "eltwise",
    "movement",
    "operation",
    "picking",
    "pointwise",
    "pooling",
    "register_operation",
    "register_rule",
    "registrations",
    "rule_of",
    "statistics",
]
