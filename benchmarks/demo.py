"""The service of ``cxrlit demo``: how long it takes to start, and each client to get its result.

Clients post an image of their own again and again, as the page does, and hold what comes back against ``Predictor``:
nothing may be lost, or be another's. The ratio is against the seconds that the network alone takes for as many images,
one at a time, which is what the clients wait for together.

    python benchmarks/demo.py [--img-size 224] [--clients 8] [--rounds 15]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np
from figures import add_options, report
from predict import draw_images, make_bundle

from cxrlit.handoff.backends.backend import BackendName
from cxrlit.handoff.predictor import Prediction, Predictor


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument(
        "--bundle", type=Path, help="a bundle to measure; without one, a network is trained for a moment"
    )
    parser.add_argument("--backend", choices=("torch", "onnx"), default="torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="uploads of each client, one after the other")
    add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments.bundle = arguments.bundle or make_bundle(folder, arguments.img_size)
        files = draw_images(folder / "images", arguments.clients)
        wanted, alone = predict_alone(arguments.bundle, arguments.backend, arguments.threads, files)
        rows: list[dict[str, Any]] = []
        n_faults = 0
        with serve(arguments.bundle, arguments.backend, arguments.threads) as served:
            rows.append({"what": "page, from the command until it is there", "ours": served.seconds, "unit": "s"})
            for n_clients in sorted({1, 2, arguments.clients}):
                seconds, n_wrong = measure(served.host, files[:n_clients], wanted, arguments.rounds)
                if not seconds:
                    raise SystemExit("no client got a result: post an image by hand and read the answer")
                n_faults += n_clients * arguments.rounds - len(seconds) + n_wrong
                for name, value in (("median", np.median(seconds)), ("99th percentile", np.quantile(seconds, 0.99))):
                    rows.append(
                        {"what": f"page, {n_clients} at once, from upload to result: {name}", "ours": float(value),
                         "baseline": n_clients * alone, "unit": "s", "ratio": float(value) / (n_clients * alone)}
                    )  # fmt: skip
    rows.append({"what": "the same: lost or mixed up", "ours": n_faults, "wanted": "0"})
    report("demo", "make bench-predict", rows, arguments.keep)


def predict_alone(
    bundle: Path, backend: BackendName, n_threads: int, files: list[Path]
) -> tuple[list[Prediction], float]:
    """What each file is to get, and the seconds of one image without a page."""
    predictor = Predictor.load(bundle, backend, n_threads=n_threads)
    wanted = predictor.predict(files, batch_size=1)  # also warms up
    start = time.perf_counter()
    for file in files:
        predictor.predict(file, heatmaps=True, batch_size=1)
    return wanted, (time.perf_counter() - start) / len(files)


class Served(NamedTuple):
    """A service that runs.

    Attributes:
        host: With its port.
        seconds: From its command until its page was read.
    """

    host: str
    seconds: float


@contextmanager
def serve(bundle: Path, backend: BackendName, n_threads: int) -> Iterator[Served]:
    """``cxrlit demo`` in a process of its own."""
    command = [sys.executable, "-m", "cxrlit", "demo", str(bundle)]
    options = ["--port", "0", "--backend", backend, "--threads", str(n_threads)]
    start = time.perf_counter()
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = next(filter(None, (re.search(r"http://(127\.0\.0\.1:\d+)", line) for line in server.stdout)))
            connection = HTTPConnection(found[1])
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            yield Served(found[1], time.perf_counter() - start)
        finally:
            server.terminate()


def measure(host: str, files: Sequence[Path], wanted: list[Prediction], n_rounds: int) -> tuple[list[float], int]:
    """Each client posts a file of its own, again and again, at the same time as the others.

    Returns:
        Seconds of each answer that came, and how many of them were not the client's own.
    """
    together = Barrier(len(files))

    def visit(number: int) -> list[tuple[float, bool]]:
        content = files[number].read_bytes()
        own = wanted[number]
        together.wait()
        return [ask(host, content, own) for _ in range(n_rounds)]

    with ThreadPoolExecutor(len(files)) as pool:
        answers = [answer for one in pool.map(visit, range(len(files))) for answer in one]
    came = [seconds for seconds, _ in answers if not np.isnan(seconds)]
    return came, sum(not is_own for seconds, is_own in answers if not np.isnan(seconds))


def ask(host: str, content: bytes, wanted: Prediction) -> tuple[float, bool]:
    """Post a file and wait; the seconds, NaN where no result came, and whether it is that of the file."""
    start = time.perf_counter()
    with closing(HTTPConnection(host, timeout=120)) as connection:
        connection.request("POST", "/predict", content, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
    seconds = time.perf_counter() - start
    if answer.status != 200:
        return float("nan"), False
    found = {one["label"]: (one["prob"], one["calibrated"]) for one in body["findings"]}
    return seconds, found == {label: (prob, wanted.calibrated[label]) for label, prob in wanted.probs.items()}


if __name__ == "__main__":
    main()
