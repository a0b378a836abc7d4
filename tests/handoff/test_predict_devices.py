"""Where a bundle predicts: the device that was asked for, with as many images at once as its memory has room for."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import SIZE, make_images, write_bundle, write_images

from cxrlit import Predictor
from cxrlit.commands.cli import main
from cxrlit.core.errors import ConfigError
from cxrlit.core.labels import LABELS
from cxrlit.handoff import read_inputs as reading
from cxrlit.handoff.backends import choose_backend, torch_backend
from cxrlit.handoff.bundle import read_bundle
from cxrlit.handoff.engine import PredictOptions, make_local
from cxrlit.handoff.journal import name_journal, read_journal
from cxrlit.handoff.predict_files import predict_all, write_rows
from cxrlit.handoff.predictor import Prediction
from cxrlit.handoff.read_inputs import Listed
from cxrlit.model.densenet import CXRNet
from cxrlit.model.device_memory import choose_batch_size, read_free_memory

Capture = pytest.CaptureFixture[str]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "torch", "--device", "mps"], "device=mps: this machine has none; auto takes what is there"),
        (["--backend", "onnx", "--device", "cuda"], "device=cuda: the onnx backend computes on the CPU as it is"),
        (["--backend", "onnx", "--compile"], "compile: the onnx backend computes on the CPU as it is: take backend=to"),
    ],
)
def test_a_device_that_cannot_be_taken_is_one_line(
    bundle: Path, tmp_path: Path, capsys: Capture, arguments: list[str], said: str
) -> None:
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    [image] = write_images(tmp_path / "in", 1)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(bundle), str(image), "--out", str(tmp_path / "preds.csv"), *arguments])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "preds.csv").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_is_not_there_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"^device=cuda: this machine has none; auto takes what is there$"):
        Predictor.load(bundle, "torch", device="cuda")
    assert "thread" in Predictor.load(bundle, "torch", device="auto").backend.description


@pytest.mark.parametrize(
    ("device", "asked", "compiles", "is_torch"),
    [
        ("auto", None, False, True),
        ("auto", "fp32", False, True),
        ("auto", "int8", False, False),
        ("cpu", None, False, False),
        ("cpu", None, True, True),
        ("cuda", None, False, True),
    ],
)
def test_auto_takes_torch_for_a_gpu_that_is_there(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, device: Any, asked: Any, compiles: bool, is_torch: bool
) -> None:
    monkeypatch.setattr(choose_backend, "has_cuda", lambda: True)
    choice = choose_backend.choose_backend(read_bundle(bundle).config, asked, device, compiles)
    assert (choice.backend == "torch") == is_torch
    if is_torch:
        assert choice.precision == asked


def test_the_driver_says_whether_there_is_a_gpu() -> None:
    assert choose_backend.has_cuda() == torch.cuda.is_available()


class SmallMemory:
    """A network's features, for at most so many images at once."""

    def __init__(self, n_images: int) -> None:
        self.n_images, self.seen = n_images, list[int]()

    def __call__(self, network: CXRNet, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.n_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(len(images))
        return whole_features(network, images)


whole_features = CXRNet.forward_features


def test_a_device_without_memory_for_a_batch_computes_its_halves(
    bundle: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_images(tmp_path, 10)
    wanted = Predictor.load(bundle, "torch", device="cpu", n_threads=1).predict(paths, batch_size=2, heatmaps=True)
    small = SmallMemory(3)
    monkeypatch.setattr(CXRNet, "forward_features", lambda network, images: small(network, images))
    predictor = Predictor.load(bundle, "torch", device="cpu", n_threads=1)
    found = predictor.predict(paths, batch_size=8, heatmaps=True)
    assert small.seen == [2, 2, 2, 2, 2]
    assert "no memory for 8 images at once: going on with 4 images" in capsys.readouterr().out
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.probs == theirs.probs
        for label in LABELS:
            np.testing.assert_array_equal(ours.heatmaps[label], theirs.heatmaps[label])


def test_files_are_read_ahead_of_a_device_that_leaves_the_cores_free(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a batch is computed the next two are read, and no more; what comes out is the same."""
    paths = write_images(tmp_path, 20)
    paths[7].write_text("no")
    predictor = Predictor.load(bundle, "torch", device="cpu", n_threads=1)
    wanted = predictor.predict(paths, batch_size=3)
    begun: list[str] = []
    read, compute = reading._read_listed, predictor.backend.run
    ahead: list[int] = []

    def note(file: Listed, config: Any) -> reading.Seen:
        begun.append(file.path)
        return read(file, config)

    def run(images: Any, with_features: bool) -> Any:
        ahead.append(len(begun) - 3 * len(ahead))
        return compute(images, with_features)

    monkeypatch.setattr(reading, "_read_listed", note)
    monkeypatch.setattr(predictor.backend, "run", run)
    monkeypatch.setattr(predictor.backend, "reads_ahead", True)
    found = predictor.predict(paths, batch_size=3)
    assert [one.reason for one in found] == [one.reason for one in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.probs == theirs.probs
    assert max(ahead) <= 3 * 5  # a batch under way, one that waits for it, and two that are read


def predict_nothing(files: Sequence[Listed]) -> Iterator[list[Prediction]]:
    """Predictions as a backend makes them, without images."""
    probs, preds = dict.fromkeys(LABELS, 0.25), dict[str, bool | None](dict.fromkeys(LABELS, True))
    for start in range(0, len(files), 100):
        names = [file.path for file in files[start : start + 100]]
        yield [Prediction(name, "", (), dict(probs), dict(probs), dict(preds), None, {}) for name in names]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(bundle, "torch", device="cpu", n_threads=1)
    monkeypatch.setattr(predictor, "predict_batches", lambda files, *_: predict_nothing(files))
    out = tmp_path / "preds.csv"
    options = PredictOptions(
        bundle=bundle, files=[], out=out, backend="torch", precision=None, batch_size=None, n_threads=1,
        heatmaps=False, as_json=False,
    )  # fmt: skip
    peaks = []
    for n_files in (1_000, 10_000):
        files = [Listed(f"image-{number}.png", "") for number in range(n_files)]
        tracemalloc.start()
        predict_all(make_local(predictor, options), files, out, options)
        write_rows(out, read_journal(name_journal(out)), predictor.labels, options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(out.read_text().splitlines()) == n_files + 1
    assert peaks[1] - peaks[0] < 9_000 * 50  # a row is some 500 bytes


@on_a_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_predicts_what_a_cpu_does(bundle: Path, tmp_path: Path, precision: Any) -> None:
    paths = write_images(tmp_path, 70)
    ours = Predictor.load(bundle, "torch", device="cuda", precision=precision).predict(paths, batch_size=32)
    theirs = Predictor.load(bundle, "torch", device="cpu", precision="fp32").predict(paths)
    differences = np.abs([[one.probs[name] - other.probs[name] for name in LABELS]
                          for one, other in zip(ours, theirs, strict=True)])  # fmt: skip
    assert differences.max() < 1e-5 if precision == "fp32" else differences.mean() < 2e-3


@on_a_gpu
def test_the_batch_size_is_that_of_the_free_memory(bundle: Path) -> None:
    backend = Predictor.load(bundle, "torch", device="auto").backend
    assert backend.batch_size == choose_batch_size(read_free_memory(), SIZE) > 1
    assert backend.reads_ahead
    assert torch.cuda.get_device_name() in backend.description


@on_a_gpu
def test_a_gpu_without_memory_for_a_batch_goes_on_with_half(bundle: Path, capsys: Capture) -> None:
    images = make_images(64, 512)
    backend = torch_backend.TorchBackend(Predictor.load(bundle, "torch", device="cpu").bundle, "fp32", 1, "cuda")
    wanted = backend.run(images[:1], False).logits
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / torch.cuda.mem_get_info()[1])
    try:
        found = backend.run(images, False).logits
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "images at once: going on with" in capsys.readouterr().out
    assert found.shape[1] == 64
    np.testing.assert_allclose(found[:, :1], wanted, atol=1e-4)
