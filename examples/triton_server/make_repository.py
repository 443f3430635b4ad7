"""Fills this folder's Triton model repository: python examples/triton_server/make_repository.py [REPOSITORY]

Writes REPOSITORY/attribution/1/model.onnx beside config.pbtxt; by default REPOSITORY is this folder. Where Triton is:

    tritonserver --model-repository REPOSITORY

No Triton has loaded it yet: tests hold config.pbtxt to the graph's inputs and outputs, and run the graph in ONNX
Runtime.
"""

import shutil
import sys
from pathlib import Path

import ebp_cuda
from ebp_cuda.models import digits

HERE = Path(__file__).resolve().parent


def main(repository: Path) -> Path:
    """The model file, in a repository that need not exist."""
    model = repository / "attribution"
    (model / "1").mkdir(parents=True, exist_ok=True)
    if repository != HERE:
        shutil.copy(HERE / "attribution" / "config.pbtxt", model)
    eb = ebp_cuda.ExcitationBackprop(digits.load(), layer="pool1", contrast_layer="auto")
    return ebp_cuda.export_onnx(eb, model / "1" / "model.onnx", shape=(1, 3, 112, 112))


if __name__ == "__main__":
    print(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE))
