"""Scripts and notebooks written for pycaffe in 2016, made to run today (`ebp-cuda port`).

names      what is called otherwise since then
python2    Python 2 -> Python 3, by fissix
edits      the rest, as edits of single places: names, imports, divisions in indices
source     a script's text: all of it, and the report
notebook   the same for the code cells of a notebook
"""

from .notebook import port_notebook
from .source import Report, port_script

__all__ = ["Report", "port_notebook", "port_script"]
