"""`ebp-cuda port`: scripts and notebooks of 2016 run today; what has no sure translation is listed, never guessed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("fissix", reason="fissix is not installed")

from ebp_cuda import InputError, caffe
from ebp_cuda.compat.porting import port_notebook, port_script
from ebp_cuda.compat.porting.names import RENAMED

NET = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 6 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
"""

SCRIPT = '''"""A demo."""
import numpy as np
import caffe, os
from caffe.proto import caffe_pb2
from caffe import layers as L, params as P
import urllib2, cPickle as pickle
from scipy import misc
net = caffe.Net('net.prototxt', caffe.TEST)
h, w = net.blobs['data'].data.shape[2:]
print 'size', h, w
shapes = map(lambda blob: blob.data.shape, net.blobs.values())
for name, blobs in net.params.iteritems():
    print name, [b.data.shape for b in blobs]
try:
    raise ValueError, 'no'
except ValueError, e:
    print e
data = np.zeros((h / 2, w / 2), dtype=np.float)
centre = net.blobs['data'].data[0, :, h / 2, (w + 2) / 4:w / 2]
rows = [n for n in xrange(h / 4)]
half = h / 2.0
message = caffe_pb2.NetParameter(name='n')
result = (data.reshape(h / 4, -1).shape, centre.shape, rows, half, shapes[0], len(`h`))
'''


def test_a_script_of_python_2_runs(tmp_path, monkeypatch) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    report = port_script(SCRIPT, "demo.py")
    names: dict = {}
    exec(compile(report.text, "demo.py", "exec"), names)
    assert names["result"] == ((2, 6), (3, 1), [0, 1], 4.0, (1, 3, 8, 6), 1)
    assert names["caffe"] is caffe and names["caffe_pb2"] is caffe.proto.caffe_pb2
    assert report.python2 and report.changed[0] == "Python 2 -> Python 3" and not report.left
    assert "h / 2" not in report.text.replace("h / 2.0", "")


def test_names_of_today() -> None:
    text = """
import scipy.misc, skimage.io, skimage.filter as sf
import numpy as np, time
from scipy.misc import imread as read, imsave
from skimage.measure import compare_ssim
a = scipy.misc.imread("a.png")
b = skimage.io.imread("a.png", as_grey=True)
c = sf.sobel(b) * np.product(a.shape) + np.float_(2)
d = time.clock(), a.astype(np.int), np.float32(1), np.float64
"""
    new = port_script(text, "names.py").text
    for line in (
        "import imageio.v2\n", "import scipy\nimport skimage.io\nimport skimage.filters as sf\n",
        "from imageio.v2 import imread as read\nfrom imageio.v2 import imwrite as imsave\n",
        "from skimage.metrics import structural_similarity as compare_ssim\n",
        'a = imageio.v2.imread("a.png")', "as_gray=True", "np.prod(a.shape) + np.float64(2)",
        "time.perf_counter(), a.astype(int), np.float32(1), np.float64\n",
    ):  # fmt: skip
        assert line in new, line


@pytest.mark.parametrize("name", [name for name in RENAMED.values() if name.startswith("numpy.") or "." not in name])
def test_the_new_names_are_there(name) -> None:
    owner, _, attribute = name.rpartition(".")
    assert hasattr(np if owner else __builtins__, attribute) or attribute in __builtins__


def test_what_is_not_sure_is_listed_and_left() -> None:
    text = """import caffe, pickle, skimage.transform
from scipy.misc import imresize
print 'x'
a = imresize(im, 0.5)
ratio = h / w
b = skimage.transform.resize(im, (3, 4))
solver = caffe.SGDSolver('solver.prototxt')
d = pickle.load(open('f'))
third = x[int(h / 3)] / 2. / float(w)
"""
    report = port_script(text, "left.py")
    reasons = "\n".join(report.left)
    for line, word in (
        (4, "scipy.misc.imresize"),
        (5, "h / w"),
        (6, "anti_aliasing"),
        (7, "SGDSolver"),
        (8, "latin1"),
        (9, "h / 3"),
    ):
        assert f"line {line}: " in reasons and word in reasons
    assert len(report.left) == 6
    for line in ("a = imresize(im, 0.5)", "ratio = h / w", "solver = caffe.SGDSolver('solver.prototxt')"):
        assert line in report.text


def test_python_3_keeps_its_prints_and_its_divisions() -> None:
    text = "import caffe\nprint('a', 1 / 2)\nx = y[n / 2]\nz = map(f, y)\n"
    report = port_script(text, "new.py")
    assert report.text == "from ebp_cuda import caffe\nprint('a', 1 / 2)\nx = y[n // 2]\nz = map(f, y)\n"
    assert not report.python2 and not report.left and len(report.changed) == 2
    assert port_script(report.text, "new.py").text == report.text


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(InputError, match=r"bad\.py: neither Python 2 nor Python 3"):
        port_script("def (:\n", "bad.py")
    for text in ("{", "[]", '{"metadata": 3}'):
        with pytest.raises(InputError, match=r"n\.ipynb: no notebook"):
            port_notebook(text, "n.ipynb")


def code(*lines: str) -> dict:
    return {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": [*lines]}


NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 0,
    "metadata": {"kernelspec": {"name": "python2"}, "language_info": {"version": "2.7.10"}},
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": ["print 'text'"]},
        code(
            "%matplotlib inline\n",
            "import numpy as np\n",
            "import caffe\n",
            "from scipy import misc\n",
            "!ls -l\n",
            "np.array?",
        ),
        code("%%bash\n", "print 1"),
        code("print 'a'\n", "x = y[n / 2]\n", "files = !ls"),
        code("im = misc.imread('a')\n", "s = np.product(s)\n", "misc.imsave('b', im)"),
        code("this is no code"),
    ],
}


def test_a_notebook_keeps_everything_but_its_code() -> None:
    report = port_notebook(json.dumps(NOTEBOOK), "n.ipynb")
    new = json.loads(report.text)
    cells = ["".join(cell["source"]) for cell in new["cells"]]
    assert cells[0] == "print 'text'" and cells[2] == "%%bash\nprint 1" and cells[5] == "this is no code"
    assert cells[1] == "%matplotlib inline\nimport numpy as np\nfrom ebp_cuda import caffe\npass\n!ls -l\nnp.array?"
    assert cells[3] == "print('a')\nx = y[n // 2]\nfiles = !ls"
    assert cells[4] == "import imageio.v2\nim = imageio.v2.imread('a')\ns = np.prod(s)\nimageio.v2.imwrite('b', im)"
    assert new["metadata"]["kernelspec"]["name"] == "python3" and "language_info" not in new["metadata"]
    assert [line.partition(":")[0] for line in report.left] == ["cell 1", "cell 2", "cell 5"]
    old = {"nbformat": 3, "metadata": {}, "worksheets": [{"cells": [{"cell_type": "code", "input": ["print 'a'"]}]}]}
    assert json.loads(port_notebook(json.dumps(old), "n").text)["worksheets"][0]["cells"][0]["input"] == ["print('a')"]


def test_the_command_writes_another_file_and_says_what_it_did(tmp_path) -> None:
    script = tmp_path / "old.py"
    script.write_text("import caffe\nprint 'a'\nratio = h / w\n")
    command = [sys.executable, "-m", "ebp_cuda", "port", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "old.ported.py").read_text() == "from ebp_cuda import caffe\nprint('a')\nratio = h / w\n"
    assert "changed: 2" in done.stdout and "left as it was: 1" in done.stdout and "line 3: h / w" in done.stdout
    assert script.read_text().startswith("import caffe")
    refused = subprocess.run([*command, "--out", str(script)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "the script itself" in refused.stderr
