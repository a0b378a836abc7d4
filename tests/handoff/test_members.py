"""Bundles of several networks, or of several views of an image: they predict what the evaluation did."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bundles import SIZE, fail_to_export, make_network, seal, write_images, write_mean_bundle
from lab import QUICK, evaluate
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient
from tiny import run_command

from cxrlit import Predictor
from cxrlit.commands.cli import main
from cxrlit.core.errors import BundleError, CheckpointError, LeakageError
from cxrlit.core.labels import LABELS
from cxrlit.data.tta import average_logits, cut_views
from cxrlit.evaluation.localisation.heatmaps import average_heatmaps, make_heatmaps
from cxrlit.evaluation.validation.internal import check_members
from cxrlit.handoff.bundle import CONFIG, SUMS, read_bundle
from cxrlit.handoff.export import check_inputs
from cxrlit.model.checkpoint import Checkpoint, read_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_members", "settings", "predicted"),
    [
        (2, "tta=crops average=logits", "the mean logits of 2 checkpoints on ten crops of each image"),
        (2, "", "the mean probs of 2 checkpoints on each image"),
        (1, "tta=flip", "the mean probs of one checkpoint on each image and its mirror image"),
    ],
)
def test_a_bundle_predicts_what_the_evaluation_did(
    frozen: Path, second: Path, cache: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    n_members: int, settings: str, predicted: str,
) -> None:  # fmt: skip
    first = shutil.copytree(frozen, tmp_path / frozen.name, ignore=shutil.ignore_patterns("eval"))
    folders = [first, second][:n_members]
    ckpt = f"ckpt=[{','.join(map(str, folders))}]"
    outcome = run_command("evaluate.py", ckpt, f"cache_dir={cache}", *QUICK, *settings.split())
    assert outcome.code == 0, outcome.err
    [evaluation] = first.glob("eval*")
    bundle = tmp_path / "bundle"
    given = (f"evaluation={evaluation}",) if settings else ()
    main(["export", *map(str, folders), "--out", str(bundle), f"cache_dir={cache}", *given])
    config = read_bundle(bundle).config
    assert (config.format, config.predicted) == (3, predicted)
    assert [member.name for member in config.members] == [f"{folder.name}/best.ckpt" for folder in folders]
    assert config.operating_point == json.loads((evaluation / "thresholds.json").read_text())
    assert predicted in " ".join((bundle / "README.md").read_text().split())

    evaluated = pd.read_csv(evaluation / "predictions_test.csv")
    files = {path.name: str(path) for path in tree.rglob("*.png")}
    columns = [f"prob_{label}" for label in LABELS]
    for backend in ("torch", "onnx"):
        out = tmp_path / f"{backend}.csv"
        names = [files[name] for name in evaluated["image"]]
        main(["predict", str(bundle), *names, "--out", str(out), "--backend", backend, "--threads", "1"])
        assert f"({predicted})" in " ".join(capsys.readouterr().out.split())
        np.testing.assert_allclose(pd.read_csv(out)[columns], evaluated[columns], rtol=0, atol=1e-6)


@pytest.fixture(scope="module", params=["none", "crops"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two networks, not to be changed."""
    return write_mean_bundle(tmp_path_factory.mktemp("members") / "bundle", 2, request.param)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_probs_and_heatmaps_are_means_over_the_members(bundle: Path, tmp_path: Path, backend: Any) -> None:
    predictor = Predictor.load(bundle, backend, n_threads=1)
    [one] = predictor.predict(write_images(tmp_path, 1), heatmaps=True)
    networks, tta = [make_network(seed=seed) for seed in (0, 1)], predictor.bundle.config.tta
    assert one.image is not None
    assert one.image.shape == (SIZE, SIZE)
    maps = [make_heatmaps(network, torch.from_numpy(one.image)[None, None]).maps[0] for network in networks]
    mean = average_heatmaps(torch.stack(maps))
    for row, label in enumerate(LABELS):
        np.testing.assert_allclose(one.heatmaps[label], mean[row], atol=1e-4)
    if tta == "none":
        with torch.inference_mode():
            logits = [network(view) for network in networks
                      for view in cut_views(torch.from_numpy(one.image)[None, None], SIZE, tta)]  # fmt: skip
        expected = average_logits(torch.stack(logits).numpy(), "probs")[0]
        np.testing.assert_allclose(list(one.probs.values()), expected, atol=1e-5)


def test_the_service_and_its_page_say_what_the_model_is(bundle: Path) -> None:
    from cxrlit.handoff.demo.service import make_app

    predictor = Predictor.load(bundle, "onnx", n_threads=1)
    client = TestClient(make_app(predictor), base_url="http://127.0.0.1:7860")
    views = "ten crops of each image" if predictor.bundle.config.tta == "crops" else "each image"
    assert client.get("/health").json()["predicted"] == f"the mean probs of 2 checkpoints on {views}"
    page = client.get("/").text
    assert "the mean of 2 DenseNet121s of 8 findings" in page
    assert ("on ten crops of each image" in page) == ("crops" in views)


# ----------------------------------------------------------------------------- what is refused


def spoil_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        change(config)
        (folder / CONFIG).write_text(json.dumps(config))
        seal(folder, 2)

    return spoil


def name_outside(folder: Path) -> None:
    sums = (folder / SUMS).read_text()
    (folder / SUMS).write_text(sums.replace("  model-2.safetensors", "  ../model-2.safetensors"))


def name_many(folder: Path) -> None:
    lines = [f"{'0' * 64}  model-{number}.safetensors\n" for number in range(10_000)]
    (folder / SUMS).write_text("".join(lines))


def cut_labels(folder: Path) -> None:
    path = folder / "model-2.safetensors"
    state = load_file(path)
    labels = {"labels": json.dumps(LABELS[:2])}
    save_file({name: value[:2].clone() if "head" in name else value for name, value in state.items()}, path, labels)
    seal(folder, 2)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_config(lambda config: config["members"].pop()),
         "it names 1 member, and the bundle has the weights of 2"),
        (spoil_config(lambda config: config.update(members=config["members"] * 2)), "it names 4 members"),
        (spoil_config(lambda config: config.update(members=config["members"] * 1000)),
         "members: List should have at most"),
        (spoil_config(lambda config: config.update(members=[])), "members: List should have at least 1"),
        (spoil_config(lambda config: config.update(members=10**6)), "members: Input should be a valid list"),
        (spoil_config(lambda config: config["members"][1].update(path="/etc/passwd")), "members.1.path: Extra inputs"),
        (spoil_config(lambda config: config.update(tta="rotate")), "tta: Input should be"),
        (spoil_config(lambda config: config.update(format=2)), "average: no bundle of format 2 has it"),
        (name_outside, "these are not the sums of"),
        (name_many, "these are not the sums of"),
        (lambda folder: (folder / "model-2.safetensors").unlink(), "model-2.safetensors: No such file"),
        (lambda folder: (folder / "model-2.onnx").write_bytes(b"x"), "model-2.onnx: it is not the file of SHA256SUMS"),
        (cut_labels, "model-2.safetensors: "),
    ],
)  # fmt: skip
def test_a_bundle_that_cannot_be_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], said: str) -> None:
    folder = write_mean_bundle(tmp_path / "bundle", 2)
    spoil(folder)
    with pytest.raises(BundleError, match=said) as fault:
        Predictor.load(folder, "torch", n_threads=1)
    assert len(str(fault.value).splitlines()) == 1


def change_phase(member: Checkpoint, **changes: Any) -> Checkpoint:
    phases = dict(member.config.phases)
    name = member.metadata.phase
    phases[name] = phases[name].model_copy(update=changes)
    return replace(member, config=member.config.model_copy(update={"phases": phases}))


def change_metadata(member: Checkpoint, **changes: Any) -> Checkpoint:
    return replace(member, metadata=member.metadata.model_copy(update=changes))


def test_members_that_differ_are_refused_by_name(frozen: Path, second: Path) -> None:
    one, other = read_checkpoint(frozen), read_checkpoint(second)
    check_members([one, other])
    check_inputs([one, other])
    model = other.config.model.model_copy(update={"normalize": "unit"})
    unit = replace(other, config=other.config.model_copy(update={"model": model}))
    split = other.metadata.split.replace(",test", ",TEST").replace(",val", ",test").replace(",TEST", ",val")
    for check, member, said, kind in (
        (check_inputs, change_phase(other, img_size=64), "sees images of 64 pixels, and", CheckpointError),
        (check_inputs, unit, "its model.normalize is unit", CheckpointError),
        (check_members, change_metadata(other, labels=["Mass"]), "its labels are", CheckpointError),
        (check_members, change_metadata(other, split=split), "its split is", LeakageError),
    ):  # fmt: skip
        with pytest.raises(kind, match=said) as fault:
            check([one, member])
        assert str(fault.value).startswith(str(other.path))


@pytest.mark.slow
def test_what_cannot_be_exported_is_a_line(
    frozen: Path, second: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "out", f"cache_dir={cache}")
    assert f"evaluate first: cxrlit evaluate ckpt=[{frozen},{second}]" in fail_to_export(capsys, frozen, second, *out)
    said = fail_to_export(capsys, f"ckpt=[{frozen},{second}]", *out)
    assert said.endswith(f"ckpt is given without its key: {frozen} {second}")
    assert "twice: name each checkpoint once" in fail_to_export(capsys, frozen, frozen, *out)
    said = fail_to_export(capsys, frozen, second, *out, f"evaluation={frozen / 'eval'}")
    assert f"the evaluation of another checkpoint than {frozen.name}/best.ckpt + {second.name}/best.ckpt" in said
    first = shutil.copytree(frozen, tmp_path / frozen.name, ignore=shutil.ignore_patterns("eval"))
    evaluate(first, first / "eval-flip", "tta=flip", f"cache_dir={cache}")
    assert f"or name one that is there: evaluation={first / 'eval-flip'}" in fail_to_export(capsys, first, *out)
    summary = first / "eval-flip" / "eval_summary.csv"
    summary.write_text(summary.read_text().replace("mirror image", "shadow"))
    said = fail_to_export(capsys, first, *out, f"evaluation={first / 'eval-flip'}")
    assert "it was predicted by the mean probs of one checkpoint on each image and its shadow" in said
    away = first / "eval-on-mine"
    (first / "eval-flip").rename(away)
    assert "eval-on-mine" not in fail_to_export(capsys, first, *out)
    summary = away / "eval_summary.csv"
    summary.write_text(summary.read_text().replace("test,", "external,"))
    said = fail_to_export(capsys, first, *out, f"evaluation={away}")
    assert f"{away}: it is an evaluation on other data: name that on the checkpoint's own test part" in said
    summary.write_text("split\n")
    assert f"{summary}: not the summary of an evaluation" in fail_to_export(capsys, first, *out, f"evaluation={away}")
    assert not (tmp_path / "out").exists()
