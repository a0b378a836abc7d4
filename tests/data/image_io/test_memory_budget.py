"""What images take in memory is bounded, whatever the number of threads, and no thread waits for ever."""

import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_decode import make_png
from tiny import plain_environment

from cxrlit.data.image_io.memory_budget import PIXELS, MemoryBudget, hold_pixels

PREPARE = """
import sys
from pathlib import Path
import pandas as pd
from cxrlit.data.store.builder import prepare_stores
root = Path(sys.argv[1])
paths = sorted(root.glob("*.png"))
index = pd.DataFrame({"source": "some", "image": [path.name for path in paths], "path": list(map(str, paths))})
index = index.assign(file=index["image"], n_bytes=[path.stat().st_size for path in paths], mtime_ns=1)
[store] = prepare_stores(index, "some", [64], "pad", root / "cache", workers=int(sys.argv[2]))
assert (store.take(store.positions) == 255).all()
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


def test_threads_hold_no_more_than_the_limit_together() -> None:
    budget, held, lock, most = MemoryBudget(10), [0], threading.Lock(), [0]

    def work(n_bytes: int) -> int:
        with budget.hold(n_bytes):
            with lock:
                held[0] += n_bytes
                most[0] = max(most[0], held[0])
                assert held[0] <= 10 or held[0] == n_bytes
            with lock:
                held[0] -= n_bytes
        return n_bytes

    wanted = [1, 4, 7, 10, 25, 0, 3] * 60
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, wanted)) == wanted
    assert (budget.used, held) == (0, [0])
    assert most[0] == 25


def test_what_fails_gives_its_memory_back() -> None:
    budget = MemoryBudget(10)
    with pytest.raises(ValueError, match="damaged"), budget.hold(10):
        raise ValueError("damaged")
    with budget.hold(10):
        assert budget.used == 10


def test_the_square_that_a_thin_image_becomes_counts() -> None:
    row = (b"IDAT", zlib.compress(bytes(65)))
    with hold_pixels(make_png(64, 1, row)):
        assert PIXELS.used >= 2 * 64**2
    assert PIXELS.used == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux says what a process took")
def test_large_images_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    side = 8192
    rows = zlib.compress((b"\0" + b"\xff" * 8 * side) * side, 1)
    content = make_png(side, side, (b"IDAT", rows), depth=16, colour=6)
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(content)
    command = [sys.executable, "-c", PREPARE, str(tmp_path), "6"]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(), check=True)
    assert int(done.stdout.split()[-1]) < 10**9 / 1024
