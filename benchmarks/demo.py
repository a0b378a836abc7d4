"""The page of ``cxrlit demo`` with 8 clients at once: how long each waits from its upload to its result.

Each client speaks to the page as a browser does, uploads an image of its own again and again, and holds what comes
back against ``Predictor``: nothing may be lost, or be another's. The ratio is against the seconds that the network
alone takes for as many images, one at a time, which is what the clients wait for together.

    python benchmarks/demo.py [--img-size 224] [--clients 8] [--rounds 15]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import numpy as np
from figures import add_options, report
from predict import draw_images, make_bundle

from cxrlit.handoff.backends import BackendName
from cxrlit.handoff.predictor import Prediction, Predictor

CELL = re.compile(r'<tr><th scope="row"><bdi>(.*?)</bdi></th><td>(.*?)</td><td>(.*?)</td>')


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
        seconds, n_wrong = measure(arguments, files, wanted)
    n_asked, together = arguments.clients * arguments.rounds, arguments.clients * alone
    rows = [
        {"what": f"page, {arguments.clients} clients at once, from upload to result: {name}", "ours": float(value),
         "baseline": together, "unit": "s", "ratio": float(value) / together}
        for name, value in (("median", np.median(seconds)), ("99th percentile", np.quantile(seconds, 0.99)))
    ]  # fmt: skip
    faults = {"what": f"the same: lost or mixed up, of {n_asked}", "ours": n_asked - len(seconds) + n_wrong}
    report("demo", "make bench-predict", [*rows, {**faults, "wanted": "0"}], arguments.keep)


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


def measure(arguments: argparse.Namespace, files: list[Path], wanted: list[Prediction]) -> tuple[list[float], int]:
    """Seconds of each answer that came, and how many of them were not the client's own."""
    command = [sys.executable, "-m", "cxrlit", "demo", str(arguments.bundle)]
    options = ["--port", "0", "--backend", arguments.backend, "--threads", str(arguments.threads)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stdout)))
        together = Barrier(arguments.clients)

        def visit(number: int) -> list[tuple[float, bool]]:
            with httpx.Client(base_url=found[0], timeout=120, trust_env=False) as client:
                call = find_call(client)
                together.wait()
                return [
                    ask(client, call, f"client{number}turn{turn}", files[number], wanted[number])
                    for turn in range(arguments.rounds)
                ]

        try:
            with ThreadPoolExecutor(arguments.clients) as pool:
                answers = [answer for one in pool.map(visit, range(arguments.clients)) for answer in one]
        finally:
            server.terminate()
    came = [seconds for seconds, _ in answers if not np.isnan(seconds)]
    return came, sum(not is_own for seconds, is_own in answers if not np.isnan(seconds))


def find_call(client: httpx.Client) -> int:
    """The number of the page's function that takes an upload."""
    functions = client.get("/config").raise_for_status().json()["dependencies"]
    return next(int(one["id"]) for one in functions if any(event == "upload" for _, event in one["targets"]))


def ask(client: httpx.Client, call: int, session: str, file: Path, wanted: Prediction) -> tuple[float, bool]:
    """Upload a file and wait; the seconds, NaN where no result came, and whether it is that of the file."""
    start = time.perf_counter()
    path = client.post("/gradio_api/upload", files={"files": (file.name, file.read_bytes())}).raise_for_status().json()
    given = {"path": path[0], "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [given], "fn_index": call, "session_hash": session}
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") == "process_completed":
                seconds = time.perf_counter() - start
                shown = {
                    label: (prob, fit) for label, prob, fit in CELL.findall(json.dumps(message).replace('\\"', '"'))
                }
                own = {
                    label: (f"{prob:.3f}", f"{wanted.calibrated[label]:.3f}") for label, prob in wanted.probs.items()
                }
                return (seconds if message["success"] else float("nan")), shown == own
    return float("nan"), False


if __name__ == "__main__":
    main()
