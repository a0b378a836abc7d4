"""What computes is known by the versions of packages and by the user's own files."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrlit.config import origin
from cxrlit.config.origin import find_origin

FILES = {
    "origin_of_mine.py": """
from origin_helpers.base import Base
from origin_helpers import make
import origin_lonely as lonely

class Loss(Base):
    def late(self):
        from origin_late import STRENGTH
        return STRENGTH

Made = make.make_class(2)
""",
    "origin_helpers/base.py": "from .deep import Deep\n\nclass Base(Deep):\n    pass\n",
    "origin_helpers/deep.py": "from origin_constants import GAMMA\n\nclass Deep:\n    gamma = GAMMA\n",
    "origin_helpers/make.py": "def make_class(number):\n    class Made:\n        x = number\n    return Made\n",
    "origin_helpers/other.py": "",
    "origin_constants.py": "GAMMA = 2\n",
    "origin_late.py": "STRENGTH = 3\n",
    "origin_lonely.py": "import origin_of_mine  # each imports the other\n",
    "origin_unrelated.py": "",
}
COUNTED = {name for name in FILES if "other" not in name and "unrelated" not in name}


def forget() -> None:
    origin._list_packages.cache_clear()
    origin._find_folder.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's own modules, on the path of imports; nothing of them stays imported."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()
    for name in [name for name in sys.modules if name.startswith("origin_")]:
        del sys.modules[name]


@pytest.mark.parametrize("target", ["origin_of_mine.Loss", "origin_of_mine.Made"])
def test_every_file_of_the_users_that_a_class_is_made_of_counts_and_no_other(folder: Path, target: str) -> None:
    before = find_origin({"_target_": target})
    changed = set()
    for name, text in FILES.items():
        (folder / name).write_text(f"{text}# edited\n")
        if find_origin({"_target_": target}) != before:
            changed.add(name)
        (folder / name).write_text(text)
    assert changed == COUNTED
    assert find_origin({"_target_": target}) == before


def test_an_installed_package_counts_by_its_version_and_one_in_its_sources_by_its_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (folder, tmp_path_factory.mktemp("site-packages")):
        info = place / "origin_package-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: origin-package\nVersion: 1.5\n")
        (info / "top_level.txt").write_text("origin_of_mine\n")
        monkeypatch.syspath_prepend(str(place))
        forget()
        found = find_origin({"_target_": "origin_of_mine.Loss"})
        if place == folder:
            assert found["origin-package"] == "1.5"
            assert "origin_of_mine" not in found
            for file in info.iterdir():
                file.unlink()
            info.rmdir()
        else:
            assert "origin-package" not in found
            assert len(found["origin_of_mine"]) == 64


def test_a_file_that_python_cannot_read_counts_by_its_bytes(folder: Path) -> None:
    before = find_origin({"_target_": "origin_of_mine.Loss"})
    (folder / "origin_of_mine.py").write_text("def half(:")  # after the import, in an editor
    found = find_origin({"_target_": "origin_of_mine.Loss"})
    assert found["origin_of_mine"] != before["origin_of_mine"]
