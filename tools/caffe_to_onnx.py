"""prototxt + caffemodel -> ONNX, without the rest of the command line.

python tools/caffe_to_onnx.py deploy.prototxt weights.caffemodel net.onnx
"""

from __future__ import annotations

import argparse
import sys

from ebp_cuda.errors import EBPError
from ebp_cuda.importers.caffe import import_file


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a Caffe network as an ONNX file.")
    parser.add_argument("prototxt")
    parser.add_argument("caffemodel", help="binary or HDF5 weights")
    parser.add_argument("out", help="ONNX file to write")
    parser.add_argument("--phase", choices=("TEST", "TRAIN"), default="TEST")
    parser.add_argument("--allow-missing", action="store_true", help="layers without stored weights keep filler values")
    args = parser.parse_args()
    try:
        report = import_file(
            args.prototxt, args.caffemodel, args.out, phase=args.phase, allow_missing=args.allow_missing
        )
    except EBPError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for what in ("dropped", "missing", "unused", "shared"):
        if found := getattr(report, what):
            print(f"{what}: {', '.join(found)}")
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
