"""Commands that run a bundle: ``cxrlit predict`` and ``cxrlit demo``."""

import argparse
from pathlib import Path

from cxrlit.core.command_line import read_path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of a command to its parser."""
    parser.add_argument("bundle", type=_path, metavar="BUNDLE", help="folder that cxrlit export wrote")
    parser.add_argument(
        "--backend", choices=("auto", "torch", "onnx", "openvino"), default="auto",
        help="auto (default): the fastest that is installed, by a stated rule; torch: as evaluate.py computes; onnx: "
        "ONNX Runtime; openvino: OpenVINO; in fp32, these are the same within 1e-5",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "int8"),
        help="bf16: torch, openvino; int8: onnx, openvino; where the CPU or the bundle has it; default: "
        "auto takes int8 where it can, else that of the evaluation",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
        help="of torch; auto (default): a GPU, where there is one",
    )  # fmt: skip
    parser.add_argument("--threads", type=_positive, help="default: one a core")
    if name == "demo":
        parser.add_argument("--port", type=_port, default=7860, help="local port (default 7860; 0: any free one)")
        return
    parser.add_argument(
        "files", type=_path, nargs="+", metavar="FILE", help="images, or folders of them; write -x.png as ./-x.png"
    )
    parser.add_argument("--out", type=_path, required=True, help="the table; killed, the same command goes on with it")
    parser.add_argument(
        "--batch-size", type=_positive,
        help="images at once; default: of torch as it was evaluated, on a GPU by its free memory, else 16",
    )  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="let torch compile the networks, for many images")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="local (default): this machine; ray: the workers of a Ray cluster, with the same rows",
    )  # fmt: skip
    parser.add_argument("--heatmaps", action="store_true", help="also draw where each label was seen, a PNG a file")
    parser.add_argument("--json", action="store_true", help="write a JSON object a line in place of CSV")


def run(options: argparse.Namespace) -> None:
    """Run the named command."""
    {"predict": _predict, "demo": _demo}[options.command](options)


def _demo(options: argparse.Namespace) -> None:
    from cxrlit.handoff.demo.server import DemoOptions, serve_demo

    serve_demo(
        DemoOptions(
            options.bundle, options.port, options.backend, options.precision, options.threads, options.device
        )
    )  # fmt: skip


def _predict(options: argparse.Namespace) -> None:
    from cxrlit.handoff.engine import PredictOptions
    from cxrlit.handoff.predict_files import predict_files

    predict_files(
        PredictOptions(
            bundle=options.bundle,
            files=options.files,
            out=options.out,
            backend=options.backend,
            precision=options.precision,
            batch_size=options.batch_size,
            n_threads=options.threads,
            heatmaps=options.heatmaps,
            as_json=options.json,
            device=options.device,
            compiles=options.compile,
            engine=options.engine,
        )
    )


def _path(text: str) -> Path:
    return Path(read_path(text))


def _positive(text: str) -> int:
    return _read_number(text, 1, 4096)


def _port(text: str) -> int:
    return _read_number(text, 0, 65535)


def _read_number(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"it is a number from {low} to {high}, not {text[:40]!r}")
    return int(text)
