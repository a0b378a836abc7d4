"""``cxrlit predict`` and ``Predictor``: files in, probs, decisions and reasons out."""

import csv
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from bundles import SIZE, make_images, make_network, write_bundle, write_images
from dicoms import SECRET, draw_radiograph, make_dicom
from hostile import Payload, write_pickle
from PIL import Image
from pydicom.uid import RLELossless
from tiny import plain_environment

from cxrlit import Predictor
from cxrlit.commands.cli import main
from cxrlit.core.labels import LABELS
from cxrlit.evaluation.localisation.heatmaps import make_heatmaps
from cxrlit.handoff import predict_files as predict_module
from cxrlit.handoff.engine import PredictOptions


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predict(bundle: Path, *arguments: str | Path) -> None:
    main(["predict", str(bundle), *map(str, arguments), "--threads", "1"])


def test_three_lines_of_python(bundle: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path, 6)
    predictions = Predictor.load(bundle, n_threads=1).predict(paths)
    assert [one.path for one in predictions] == [str(path) for path in paths]
    one = predictions[0]
    assert list(one.probs) == list(one.calibrated) == list(one.preds) == list(LABELS)
    assert one.calibrated[LABELS[0]] == one.probs[LABELS[0]]  # it has no calibration
    logit = np.log(one.probs["Mass"] / (1 - one.probs["Mass"]))
    assert one.calibrated["Mass"] == pytest.approx(1 / (1 + np.exp(-(0.8 * logit - 0.3))), abs=1e-6)
    assert one.preds["Mass"] == (one.calibrated["Mass"] >= 0.4)
    assert one.preds[LABELS[-1]] is None
    assert one.image is not None
    assert one.image.shape == (SIZE, SIZE)


@pytest.mark.slow
def test_a_system_that_does_not_say_which_cores_are_ours(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    [path] = write_images(tmp_path / "in", 1)
    for backend in ("torch", "onnx", "openvino"):
        main(["predict", str(bundle), str(path), "--out", str(tmp_path / f"{backend}.csv"), "--backend", backend])
        assert read_rows(tmp_path / f"{backend}.csv")[0]["reason"] == ""


def test_the_backends_agree(bundle: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path, 10)
    torch_s, *others = [
        Predictor.load(bundle, backend, n_threads=1).predict(paths, heatmaps=True)
        for backend in ("torch", "onnx", "openvino")
    ]
    for ours, theirs in [pair for made in others for pair in zip(torch_s, made, strict=True)]:
        assert np.allclose(list(ours.probs.values()), list(theirs.probs.values()), atol=1e-5, rtol=0)
        for label in LABELS:
            assert np.allclose(ours.heatmaps[label], theirs.heatmaps[label], atol=1e-4)


@pytest.mark.slow
def test_the_backends_agree_on_real_radiographs(bundle: Path, nih_sample: Path) -> None:
    probs = []
    for backend in ("torch", "onnx", "openvino"):
        predictions = Predictor.load(bundle, backend).predict(sorted(nih_sample.rglob("*.png")), batch_size=50)
        assert not [one.path for one in predictions if one.reason]
        probs.append([list(one.probs.values()) for one in predictions])
    assert len(probs[0]) == 1000
    assert np.abs(np.subtract(probs[1:], probs[:1])).max() < 1e-5


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_the_graph_is_the_network_at_every_batch_size(bundle: Path, backend: Any) -> None:
    predictor, network = Predictor.load(bundle, backend, n_threads=1), make_network()
    for n_images in (1, 3, 8):
        images = make_images(n_images, seed=n_images)
        output = predictor.backend.run(images, with_features=True)
        with torch.no_grad():
            features = network.forward_features(torch.from_numpy(images).unsqueeze(1))
            logits = network.forward_head(features)
        assert np.abs(output.logits[0] - logits.numpy()).max() < 1e-4
        assert output.features is not None
        assert np.abs(output.features[0] - features.numpy()).max() < 1e-3 * float(features.max())


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_without_torch_nothing_depends_on_the_batch_or_the_threads(bundle: Path, backend: Any) -> None:
    images = make_images(5, seed=0)
    whole = Predictor.load(bundle, backend, n_threads=1).backend.run(images, with_features=True)
    shared = Predictor.load(bundle, backend, n_threads=3).backend
    parts = [shared.run(images[:2], with_features=True), shared.run(images[2:], with_features=True)]
    for ours, theirs in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(ours, np.concatenate(theirs, axis=1))


def test_the_heatmaps_are_those_of_the_evaluation(bundle: Path, tmp_path: Path) -> None:
    [one] = Predictor.load(bundle, "torch", n_threads=1).predict(write_images(tmp_path, 1), heatmaps=True)
    assert one.image is not None
    maps = make_heatmaps(make_network(), torch.from_numpy(one.image)[None, None]).maps[0].numpy()
    for row, label in enumerate(LABELS):
        assert np.allclose(one.heatmaps[label], maps[row], atol=1e-5)


def test_every_format_and_every_fault_has_a_row(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    write_images(folder, 3)
    Image.fromarray(make_images(1, 60)[0]).convert("RGB").save(folder / "a.jpg")
    (folder / "b.dcm").write_bytes(make_dicom(draw_radiograph(), RLELossless))
    (folder / "c.png").write_bytes((folder / "000.png").read_bytes()[:-30])
    (folder / "d.txt").write_text("notes")
    (folder / ".hidden").write_text("notes")
    (folder / "more").mkdir()
    Image.fromarray((make_images(1, 70)[0].astype(np.uint16)) * 257).save(folder / "more" / "deep.png")
    predict(bundle, folder, "--out", tmp_path / "out" / "preds.csv")
    rows = read_rows(tmp_path / "out" / "preds.csv")
    assert [Path(row["file"]).name for row in rows] == [
        "000.png", "001.png", "002.png", "a.jpg", "b.dcm", "c.png", "d.txt", "deep.png"
    ]  # fmt: skip
    reasons = {Path(row["file"]).name: row["reason"] for row in rows if row["reason"]}
    assert set(reasons) == {"c.png", "d.txt"}
    assert reasons["d.txt"] == "not a PNG, JPEG or DICOM image"
    assert all((row["prob_Mass"] == "") == bool(row["reason"]) for row in rows)
    assert {row["pred_Pneumothorax"] for row in rows} == {""}
    said = capsys.readouterr().out
    assert "2 of 8 files could not be read" in said
    assert "Research use only" in said
    assert not list((tmp_path / "out").glob(".*.journal"))


def test_a_dicom_file_that_says_it_is_lateral_is_warned_of(bundle: Path, tmp_path: Path) -> None:
    views = ("PA", "LL", "rl ", SECRET[:16])
    for number, view in enumerate(views):
        (tmp_path / f"{number}.dcm").write_bytes(make_dicom(draw_radiograph(), ViewPosition=view))
    warned = [[text for text in one.warnings if "view" in text] for one in Predictor.load(bundle).predict(tmp_path)]
    said = "its file says that its view is {}, which is not frontal"
    assert warned == [[], [said.format("LL")], [said.format("RL")], []]


def test_the_floats_read_back_to_the_same_bits(bundle: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 5)
    predict(bundle, *paths, "--out", tmp_path / "preds.csv")
    predict(bundle, *paths, "--out", tmp_path / "preds.jsonl", "--json")
    predictions = Predictor.load(bundle, n_threads=1).predict(paths)
    for row, line, one in zip(
        read_rows(tmp_path / "preds.csv"), (tmp_path / "preds.jsonl").read_text().splitlines(), predictions, strict=True
    ):
        plain = json.loads(line)
        for label in LABELS:
            assert np.float32(row[f"prob_{label}"]) == np.float32(one.probs[label])
            assert float(row[f"calibrated_{label}"]) == one.calibrated[label] == plain["calibrated"][label]
            assert plain["probs"][label] == one.probs[label]
            assert plain["preds"][label] == one.preds[label]


def test_heatmaps_are_drawn(bundle: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.png").write_text("no")
    predict(bundle, tmp_path / "in", "--out", tmp_path / "preds.csv", "--heatmaps")
    rows = read_rows(tmp_path / "preds.csv")
    assert [row["heatmap"] for row in rows] == [
        "preds-heatmaps/000001-000.png", "preds-heatmaps/000002-001.png", ""
    ]  # fmt: skip
    for row in rows[: len(paths)]:
        with Image.open(tmp_path / row["heatmap"]) as picture:
            assert picture.width > 3 * 256


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda pixels: 255 - pixels, "its correlation with the mean training image"),
        (lambda pixels: np.rot90(pixels), "its correlation with the mean training image"),
        (lambda pixels: np.full_like(pixels, 255), "its histogram is"),
        (lambda pixels: np.stack([pixels, pixels // 2, pixels // 4], axis=2), "it has colour"),
        (lambda pixels: np.concatenate([pixels] * 3), "its aspect is 0.33"),
        (lambda pixels: pixels, ""),
        (lambda pixels: np.stack([pixels] * 3, axis=2), "gray saved as RGB"),
    ],
)
def test_what_is_no_such_radiograph_is_warned_of(
    bundle: Path, tmp_path: Path, spoil: Callable[[Any], Any], said: str
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.ascontiguousarray(spoil(make_images(1, seed=3)[0]))).save(path)
    [one] = Predictor.load(bundle, n_threads=1).predict(path)
    assert one.reason == ""
    assert one.probs
    assert (said in "; ".join(one.warnings)) if said else one.warnings == ()


KILL = """
import os, signal, sys
from cxrlit.commands.cli import main
from cxrlit.handoff.predictor import Predictor

whole = Predictor._predict_batch
done = []

def count(self, *arguments):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(0)
    return whole(self, *arguments)

Predictor._predict_batch = count
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_same_bytes(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, torch_on_cpu = tmp_path / "in", ("--backend", "torch", "--device", "cpu")  # batch after batch
    write_images(folder, 13)
    (folder / "005.png").write_text("no")
    out = tmp_path / "preds.csv"
    predict(bundle, folder, "--out", tmp_path / "whole.csv", *torch_on_cpu)
    killed = subprocess.run(
        [sys.executable, "-c", KILL, "predict", str(bundle), str(folder), "--out", str(out), "--threads", "1",
         *torch_on_cpu],
        env=plain_environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    journal = tmp_path / ".preds.csv.journal"
    assert len(journal.read_text().splitlines()) == 3
    with journal.open("a") as file:
        file.write('[{"file": "half a li')  # a line that was being written
    capsys.readouterr()
    predict(bundle, folder, "--out", out, *torch_on_cpu)
    assert "8 files are done" in capsys.readouterr().out
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_no_row_depends_on_whether_files_before_its_batch_can_be_read(bundle: Path, tmp_path: Path) -> None:
    """torch computes the last image of five alone, in other bits than as one of two."""
    paths = write_images(tmp_path, 5)
    paths[4].unlink()
    paths[4].symlink_to(paths[3])
    predictor = Predictor.load(bundle, "torch", device="cpu", n_threads=1)
    *_, before = predictor.predict(paths, batch_size=2)
    paths[0].write_text("no")
    *_, after = predictor.predict(paths, batch_size=2)
    assert before.probs == after.probs


def test_a_journal_of_other_files_is_begun_anew(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_images(tmp_path / "in", 2)
    (tmp_path / ".preds.csv.journal").write_text('{"bundle": "another"}\n[{"file": "x"}]\n')
    predict(bundle, *paths, "--out", tmp_path / "preds.csv")
    assert "begun anew" in capsys.readouterr().out
    assert len(read_rows(tmp_path / "preds.csv")) == 2


def test_a_file_that_has_changed_is_done_again(bundle: Path, tmp_path: Path) -> None:
    """Killed before the end, then another file under the same name."""
    paths = write_images(tmp_path / "in", 2)
    out, journal = tmp_path / "preds.csv", tmp_path / ".preds.csv.journal"
    stop_before_the_table(bundle, paths, out)
    assert len(journal.read_text().splitlines()) == 2
    paths[1].write_text("no")
    predict(bundle, *paths, "--out", out)
    assert [row["reason"] for row in read_rows(out)] == ["", "not a PNG, JPEG or DICOM image"]


def stop_before_the_table(bundle: Path, paths: list[Path], out: Path, batch_size: int | None = None) -> None:
    """All is predicted, and in the journal alone."""
    options = PredictOptions(
        bundle=bundle, files=paths, out=out, backend="auto", precision=None, batch_size=batch_size, n_threads=1,
        heatmaps=False, as_json=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_module, "write_rows", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_module.predict_files(options)


def test_a_damaged_journal_is_gone_on_with_as_far_as_it_is_whole(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, out, journal = write_images(tmp_path / "in", 3), tmp_path / "preds.csv", tmp_path / ".preds.csv.journal"
    stop_before_the_table(bundle, paths, out, batch_size=1)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"\xff\0" * 20 + b"\n", *lines[3:]]))
    capsys.readouterr()
    predict(bundle, *paths, "--out", out, "--batch-size", "1")
    said = capsys.readouterr().out
    assert "is damaged" in said
    assert "1 files are done" in said
    predict(bundle, *paths, "--out", tmp_path / "whole.csv", "--batch-size", "1")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_what_it_wrote_itself_is_not_read(bundle: Path, tmp_path: Path) -> None:
    paths, out = write_images(tmp_path / "in", 3), tmp_path / "in" / "preds.csv"
    predict(bundle, tmp_path / "in", "--out", out, "--heatmaps")
    first = out.read_bytes()
    predict(bundle, tmp_path / "in", "--out", out, "--heatmaps")
    assert out.read_bytes() == first
    paths[0].unlink()
    (tmp_path / "in" / "preds-heatmaps" / ".000009-x.png-0123abcd.png").write_text("killed")
    predict(bundle, tmp_path / "in", "--out", out, "--heatmaps")
    assert sorted(os.listdir(tmp_path / "in" / "preds-heatmaps")) == ["000001-001.png", "000002-002.png"]


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_names_are_text_whatever_is_in_them(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    """No line of the table ends early, none is a formula, no terminal obeys."""
    monkeypatch.chdir(tmp_path)
    names = [
        b"caf\xe9.png",
        b"cr\rx.png",
        b"nl\nx.png",
        b"esc\x1b[31m.png",
        b"=cmd|calc.png",
        b"-x.png",
        'ü,".png'.encode(),
    ]
    for name in names:
        Path(os.fsdecode(name)).write_text("no")
    write_images(Path("good"), 1)
    os.rename("good/000.png", "good/\x1b]0;x\x07.png")
    for more in ([], ["--json"]):
        predict(bundle, *[f"./{os.fsdecode(n)}" for n in names], "good", "--out", "preds.csv", "--backend", backend,
                "--heatmaps", *more)  # fmt: skip
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        content = Path("preds.csv").read_bytes()
        assert not set(content) & {0x1B, 0x0D}
        assert len(content.splitlines()) == len(names) + (1 if more else 2)
        Path("preds.csv").unlink()
    assert os.listdir("preds-heatmaps") == ["000008-_]0;x_.png"]


@pytest.mark.parametrize("place", ["image", "folder", "pipe", "notes.txt"])
def test_nothing_but_a_table_of_predictions_is_replaced(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    [image] = write_images(tmp_path, 1)
    out = image if place == "image" else tmp_path / place
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    before = image.read_bytes()
    with pytest.raises(SystemExit):
        predict(bundle, image, "--out", out)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {out}: it ")
    assert image.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"000.png", "folder", "notes.txt", "pipe"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.png"], "nothing.png: there is no such file or folder"),
        (["empty"], "there is no file in it"),
        (["bad.png"], "no file could be read"),
        (["000.png", "--backend", "onnx", "--precision", "bf16"], "the onnx backend computes in fp32 or int8"),
        (["000.png", "--backend", "torch", "--precision", "int8"], "the torch backend computes in fp32 or bf16"),
        (["000.png", "--precision", "int8"], "has no int8: cxrlit export CKPT --int8 makes one that has"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(SystemExit) as stop:
        predict(bundle, *arguments, "--out", "preds.csv")
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def write_bomb(path: Path) -> None:
    """A PNG of 50,000 x 50,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 10**6)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


MEASURED = """
import re, sys
from pathlib import Path
from cxrlit.commands.cli import main
main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_hostile_files_are_rows_in_bounded_memory(bundle: Path, tmp_path: Path) -> None:
    """Whoever fills the folder would like to run something, to read something, or to fill the memory."""
    folder, canary, secret = tmp_path / "in", tmp_path / "canary", tmp_path / "secret.png"
    [good] = write_images(folder, 1)
    write_images(tmp_path / "elsewhere", 1)
    secret.write_bytes(good.read_bytes())
    for name in ("a.ckpt", "b.pt", "c.safetensors", "d.png", "e.dcm"):
        write_pickle(folder / name, Payload(canary))
    (folder / "f.png").write_bytes(good.read_bytes() + (folder / "a.ckpt").read_bytes())  # a polyglot
    write_bomb(folder / "g.png")
    with (folder / "h.png").open("wb") as file:
        file.truncate(10 * 2**30)
    (folder / "i.png").symlink_to(secret)
    (folder / "j").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "k.png")
    stored = draw_radiograph()
    (folder / "l.dcm").write_bytes(make_dicom(stored, RetrieveURL="file:///etc/passwd", PatientName=SECRET))
    (folder / "=cmd.png").write_text("no")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "predict", str(bundle), str(folder), "--out", str(tmp_path / "preds.csv"),
         "--backend", "onnx", "--threads", "1"],
        env=plain_environment(), capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert int(done.stdout.split()[-1]) < 1000  # MiB
    rows = {Path(row["file"]).name: row["reason"] for row in read_rows(tmp_path / "preds.csv")}
    assert not canary.exists()
    assert {name for name, reason in rows.items() if not reason} == {"000.png", "f.png", "l.dcm"}
    assert rows["g.png"] == "50000 x 50000 pixels are too many"
    assert "larger than" in rows["h.png"]
    assert rows["i.png"] == rows["j"] == "a link to what lies outside of the folder"
    assert rows["k.png"] == "not a file"
    assert SECRET not in (tmp_path / "preds.csv").read_text() + done.stdout


def test_without_torch_nothing_of_it_is_imported_and_nothing_reports_to_others(bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime would keep an id of the machine and a queue of reports below HOME and TMPDIR."""
    [path] = write_images(tmp_path / "in", 1)
    (tmp_path / "home").mkdir()
    home = str(tmp_path / "home")
    code = (
        "import sys; from cxrlit.commands.cli import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'pandas', 'hydra', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(bundle), str(path), "--out", str(tmp_path / "p.csv"),
         "--backend", "onnx"],
        env=plain_environment(HOME=home, TMPDIR=home), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
    assert list((tmp_path / "home").rglob("*")) == []
