"""One HTML page of what a run over many images gave: opens without a server and without a network."""

from .page import write_report

__all__ = ["write_report"]
