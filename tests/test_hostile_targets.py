"""A checkpoint that names a class in each group of its config: it is shown and compared, and never imported."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from hostile import write_whole
from lab import Lab, evaluate

from cxrlit import CXRModule
from cxrlit.commands.cli import main
from cxrlit.core.files import hash_file
from cxrlit.model.archive import read_archive

CANARY = {"_target_": "canary.Canary"}


@pytest.fixture
def hostile(frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished phase folder with such a checkpoint; ``canary.py`` is in the current folder, and leaves a file."""
    folder = Path(shutil.copytree(frozen, tmp_path / "runs" / "default" / frozen.name))
    content = read_archive(folder / "best.ckpt")
    config = content["cxrlit"]["config"]
    config |= {"loss": CANARY, "optimizer": CANARY, "callbacks": {"canary": CANARY}}
    config["augment"] = {"transforms": {"canary": CANARY}}
    config["metrics"]["collection"] = {"canary": CANARY}
    for phase in config["phases"].values():
        phase |= {"scheduler": CANARY, "callbacks": {"canary": CANARY, "phased_unfreezing": CANARY}}
    write_whole(folder / "best.ckpt", content)
    record = json.loads((folder / "phase.json").read_text())
    (folder / "phase.json").write_text(json.dumps({**record, "best_sha256": hash_file(folder / "best.ckpt")}))
    (tmp_path / "canary.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.dead').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.slow
def test_nothing_that_a_checkpoint_names_is_imported(hostile: Path, lab: Lab, tmp_path: Path) -> None:
    evaluate(hostile, hostile / "eval2")
    lab.train_well(f"init_from={hostile}", "phase=finetune")
    lab.train_well("run=again")
    module = CXRModule.load_from_checkpoint(hostile / "best.ckpt")
    assert module.labels
    main(["export", str(hostile), "--out", str(tmp_path / "bundle"), f"data.root={lab.tree}", f"cache_dir={lab.cache}"])
    assert not (tmp_path / "canary.dead").exists()
    assert "canary" not in sys.modules
