"""What is hashed, written or drawn by name stays what it was, of one source and of two: old phases are found again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from trees import write_chexpert_tree

from cxrlit.config import PrepareConfig, read_config
from cxrlit.core.labels import LABELS
from cxrlit.data.augment import key_names
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.split import name_patients, split_by_patient
from cxrlit.data.store.find_store import StoreSpec
from cxrlit.data.store.open_stores import list_sources

CONF = Path(__file__).parents[2] / "conf"


def write_files(root: Path, files: Sequence[str]) -> None:
    """Files whose sizes no version of an image library decides: no image is read here."""
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x" * (100 + number))


def read_sources(folder: Path, *sources: str, **changes: object) -> SplitData:
    """CheXpert's tree, a table with the same names of images and patients, or both; each lacks an image.

    The table is called ``chexpert-2``: ``chexpert-2/`` sorts before ``chexpert/``, as ``chexpert-2`` does not.
    """
    written = write_chexpert_tree(folder / "chexpert", n_patients=30, images=False)
    files = [path.split("/", 1)[1] for table in written.values() for path in table["Path"]]
    write_files(folder / "chexpert", files[1:])
    paths = [file.split("/", 1)[1] for file in files]
    write_files(folder / "table", paths[:7] + paths[8:])
    table = pd.DataFrame({"image": paths, "patient": [path.split("/")[0] for path in paths]})
    marks = np.random.default_rng(0).integers(0, 2, (len(paths), 5))
    table = table.assign(**{label: marks[:, column] for column, label in enumerate(LABELS[:5])})
    table.to_csv(folder / "table" / "table.csv", index=False)
    keys = {"chexpert.root": folder / "chexpert", "table.table": folder / "table" / "table.csv", "max_dropped": 0.1}
    keys |= {"table.name": "chexpert-2", "table.columns.patient": "patient", "chexpert.views": "[PA,AP]", **changes}
    overrides = [f"data.{key}={value}" for key, value in keys.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("prepare", overrides=["data=several", f"data.sources=[{','.join(sources)}]", *overrides])
    return load_data(read_config(composed, PrepareConfig).data, LABELS, folder)


def hash_texts(texts: Sequence[object]) -> str:
    return hashlib.sha256("\n".join(map(str, texts)).encode()).hexdigest()[:12]


def hash_csv(table: pd.DataFrame) -> str:
    return hash_texts([table.to_csv(index=False, lineterminator="\n")])


PINNED = {
    ("chexpert",): [
        "chexpert", "5150561f714f", "d5c16e7614ad", "d2db74d06789", "785ee532d9a4", "4706ab4d28c3", "68886afe4dc8",
        "70d93552d0f0", "chexpert-13645d708549",
    ],
    ("table",): [
        "chexpert-2", "f5574725e343", "0444f3089b0b", "f087d2daaf14", "3c03071cdaec", "08c5352986cc", "e2531c0698c8",
        "bea8b8066a40", "chexpert-2-389d30241a8a",
    ],
    ("chexpert", "table"): [
        "chexpert+chexpert-2", "687609ffd276", "1da6b2fd10be", "a9628bbbbf71", "a808d821c3e8", "87f878c63851",
        "51bd4e2ac32a", "73fe2fc1ffe2", "chexpert-2-389d30241a8a", "chexpert-13645d708549",
    ],
    ("table", "chexpert"): [
        "chexpert-2+chexpert", "687609ffd276", "1da6b2fd10be", "a9628bbbbf71", "4a71b58794eb", "87f878c63851",
        "51bd4e2ac32a", "73fe2fc1ffe2", "chexpert-2-389d30241a8a", "chexpert-13645d708549",
    ],
}  # fmt: skip


@pytest.mark.parametrize("sources", PINNED)
def test_hashes_files_and_seeds(tmp_path: Path, sources: tuple[str, ...]) -> None:
    data = read_sources(tmp_path, *sources)
    index = data.name_rows(data.index)
    assert PINNED[sources] == [
        data.name,
        data.index_hash,
        data.split_hash,
        hash_csv(data.name_rows(data.split)),
        hash_csv(data.name_rows(pd.concat([data.dropped, data.excluded]).assign(path=""))),
        hash_texts(sorted(name_patients(data.split, "train"))),
        hash_texts(key_names(index["image"]).tolist()),
        hash_texts(split_by_patient(index, LABELS, {"a": 0.3, "b": 0.7}, 0).tolist()),
        *(StoreSpec(rows, name, "pad").locate(tmp_path).name for name, _, rows in list_sources(data)),
    ]


@pytest.mark.parametrize(
    ("sources", "pinned"), [(("chexpert",), "17f906acd368"), (("table", "chexpert"), "b45f17a2f85a")]
)
def test_folds(tmp_path: Path, sources: tuple[str, ...], pinned: str) -> None:
    assert read_sources(tmp_path, *sources, fold=1, n_folds=4, split_seed=3).split_hash == pinned
