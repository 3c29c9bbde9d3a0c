"""Export of a bundle: one file that runs without code of ours."""

import argparse
from pathlib import Path

import instrunet
from instrunet import export
from pipelines.console import result


def run(args: argparse.Namespace) -> Path:
    export.require()
    path, difference = export.to_onnx(instrunet.load(args.bundle), args.out)
    result(f"exported {path.stat().st_size / 1e6:.1f} MB, opset {export.OPSET}, largest difference {difference:.1e}")
    return path
