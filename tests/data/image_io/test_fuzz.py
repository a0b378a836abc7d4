"""Damaged files by the hundred, decoded in a process of its own: no crash, no hang, no gigabyte, always a reason."""

import os
import subprocess
import sys
from pathlib import Path

import fuzzing
import numpy as np
import pandas as pd
import pytest
from dicoms import LOSSLESS, PLAIN, SECRET
from fuzzing import MALFORMED, SPECIAL, write_damaged_images, write_malformed_dicoms
from lying import LIES, check_lies, tell_lies
from tiny import plain_environment

from cxrlit.data.image_io.decode import decode_pixels


def decode_under_watch(folder: Path) -> pd.DataFrame:
    """What ``fuzzing.decode_folder`` says, from a process that has neither crashed nor used much memory."""
    command = [sys.executable, fuzzing.__file__, str(folder)]
    environment = plain_environment(PYTHONPATH=os.pathsep.join(sys.path))  # of what it imports from here
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert (finished.returncode, finished.stderr) == (0, "")
    peak = float(finished.stdout)  # nothing else is printed
    assert peak < 1024, f"{peak:.0f} MiB"
    return pd.read_csv(folder.with_name(folder.name + "-outcomes.csv"), dtype=str, keep_default_na=False)


def check_reasons(outcomes: pd.DataFrame) -> None:
    odd = outcomes[~outcomes["outcome"].isin(["decoded", "refused"])]
    assert odd.empty, odd.to_string()
    reasons = outcomes.loc[outcomes["outcome"] == "refused", "reason"]
    assert reasons.str.len().gt(4).all()
    assert reasons.map(str.isprintable).all()
    assert not reasons.str.contains("|".join(SECRET.split("^"))).any()


def test_1000_damaged_images(tmp_path: Path) -> None:
    table = write_damaged_images(tmp_path / "images", 1000, seed=0)
    assert table["good"].sum() > 300
    assert (~table["good"]).sum() > 500
    outcomes = decode_under_watch(tmp_path / "images")
    check_reasons(outcomes)
    both = table.merge(outcomes, on="file", how="outer", suffixes=("_wanted", ""))
    assert len(both) == 1000
    wrong = both[both["good"] != (both["outcome"] == "decoded")]
    assert wrong.empty, wrong.to_string()
    changed = both[both["digest"] != both["digest_wanted"]]
    assert changed.empty, changed.to_string()


def test_500_malformed_dicoms(tmp_path: Path) -> None:
    table = write_malformed_dicoms(tmp_path / "dicoms", 500, seed=0)
    outcomes = decode_under_watch(tmp_path / "dicoms")
    check_reasons(outcomes)
    both = table.merge(outcomes, on="file", how="outer")
    taken = both[(both["bad"] == True) & (both["outcome"] == "decoded")]  # noqa: E712
    assert taken.empty, taken.to_string()
    assert set(both.loc[both["outcome"] == "refused", "kind"]) == set(MALFORMED)


@pytest.mark.filterwarnings("ignore:::pydicom")
def test_300_dicoms_whose_tags_lie() -> None:
    """The picture correlates with the true one by more than 0.99, or there is a reason."""
    rng = np.random.default_rng(0)
    decoded = [check_lies(*tell_lies(rng, *rng.choice(LIES, rng.integers(1, 4), replace=False))) for _ in range(300)]
    assert 80 < sum(decoded) < 250


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    tables = [write_damaged_images(tmp_path / name, 40, seed=3) for name in ("a", "b")]
    pd.testing.assert_frame_equal(*tables)
    assert set(SPECIAL) <= set(tables[0]["kind"])
    for name in tables[0].loc[tables[0]["kind"].isin(["cut", "bit flipped", "good gray"]), "file"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [*PLAIN, *LOSSLESS], ids=lambda syntax: syntax.name)
def test_flipped_bits_for_each_syntax(syntax: str, tmp_path: Path) -> None:
    """The decoders behind are not ours: this finds out whether a file can crash them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "flipped"
    folder.mkdir()
    for number in range(1000):
        content = fuzzing.make_any_dicom(rng, [syntax])
        if number == 0:
            decode_pixels(content)
        start = 132 if number % 2 else fuzzing.find_pixels(content)
        (folder / f"{number}.dcm").write_bytes(fuzzing.flip_bits(content, rng, start))
    outcomes = decode_under_watch(folder)
    check_reasons(outcomes)
    assert len(outcomes) == 1000
