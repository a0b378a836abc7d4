"""Loaders that are ahead: what they read and in what order is as without them, and nothing is left of them."""

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from multiprocessing import active_children

import pytest
from torch.utils.data import DataLoader, Dataset

from cxrlit.core.errors import DataError
from cxrlit.data.loaders import N_AHEAD, AheadLoader, ProcessLoader


class Numbers(Dataset[int]):
    """Notes what was read and by whom; one of them may be damaged."""

    def __init__(self, n_numbers: int, damaged: int = -1) -> None:
        self.n_numbers, self.damaged = n_numbers, damaged
        self.read: list[int] = []
        self.readers: set[threading.Thread] = set()

    def __len__(self) -> int:
        return self.n_numbers

    def __getitem__(self, number: int) -> int:
        self.read.append(number)
        self.readers.add(threading.current_thread())
        if number == self.damaged:
            raise DataError(f"{number} is damaged")
        return number


def make_loader(numbers: Numbers) -> AheadLoader[list[int]]:
    return AheadLoader(numbers, batch_size=2, collate_fn=list)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends without the threads and processes that it started."""
    before = set(threading.enumerate())
    yield
    gc.collect()  # an error that torch has raised again and its frame hold each other
    assert not active_children()
    for thread in set(threading.enumerate()) - before:
        assert thread.name.startswith("QueueFeeder")  # torch's own; it ends when it comes to it
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.parametrize("n_numbers", [0, 1, 2 * N_AHEAD - 1, 2 * N_AHEAD, 2 * N_AHEAD + 1, 51])
def test_batches_are_those_of_a_plain_loader(n_numbers: int) -> None:
    numbers = Numbers(n_numbers)
    loader = make_loader(numbers)
    plain = DataLoader(Numbers(n_numbers), batch_size=2, collate_fn=list)
    for _ in range(2):
        assert list(loader) == list(plain)
    assert len(loader) == len(plain)
    assert threading.current_thread() not in numbers.readers


def test_it_is_never_further_ahead_than_it_says() -> None:
    numbers = Numbers(100)
    for n_taken, _ in enumerate(make_loader(numbers), start=1):
        assert len(numbers.read) <= 2 * (n_taken + N_AHEAD - 1)
    assert numbers.read == list(range(100))


def test_reading_goes_on_while_a_batch_is_used() -> None:
    class Waiting(Numbers):
        def __getitem__(self, number: int) -> int:
            if number == 2 * N_AHEAD - 1:
                all_read.set()
            return number

    all_read = threading.Event()
    batches = iter(make_loader(Waiting(100)))
    next(batches)
    assert all_read.wait(timeout=60)


def test_iterations_that_overlap_are_apart() -> None:
    loader = make_loader(Numbers(20))
    for outer, batch in enumerate(loader):
        assert batch == [2 * outer, 2 * outer + 1]
        assert [number for batch in loader for number in batch] == list(range(20))


def test_the_thread_ends_with_the_last_batch() -> None:
    numbers = Numbers(20)
    batches = iter(make_loader(numbers))
    assert len(list(islice(batches, 10))) == 10  # and does not ask for an eleventh
    (reader,) = numbers.readers
    reader.join(timeout=60)
    assert not reader.is_alive()


@pytest.mark.parametrize("n_taken", [0, 1, 5])
def test_an_iteration_that_is_given_up(n_taken: int) -> None:
    batches = iter(make_loader(Numbers(1000)))
    assert len(list(islice(batches, n_taken))) == n_taken
    del batches


@pytest.mark.parametrize("damaged", [0, 1, 2, 7, 19])
def test_an_error_comes_where_its_batch_would(damaged: int) -> None:
    batches = iter(make_loader(Numbers(20, damaged)))
    for batch in range(damaged // 2):
        assert next(batches) == [2 * batch, 2 * batch + 1]
    with pytest.raises(DataError, match=f"^{damaged} is damaged$"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.slow
def test_an_error_of_a_process_is_the_line_that_it_was() -> None:
    loader = ProcessLoader(Numbers(20, damaged=7), batch_size=2, collate_fn=list, num_workers=1)
    batches = iter(loader)
    assert list(islice(batches, 3)) == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(DataError, match=r"^7 is damaged$"):
        next(batches)


@pytest.mark.slow
def test_the_end_of_the_program_ends_processes_that_are_deaf_to_sigterm() -> None:
    done = subprocess.run([sys.executable, "-c", UNFINISHED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1]\n", "")


UNFINISHED = """
import signal
from cxrlit.data.loaders import ProcessLoader

def be_deaf(_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

loader = ProcessLoader(range(9), batch_size=2, collate_fn=list, num_workers=2, worker_init_fn=be_deaf,
                       persistent_workers=True)
print(next(batches := iter(loader)))
"""


SMALL = ("size=4k", "size=1M,ro", "size=4k,nr_inodes=1")


def load_with(shared_memory: str) -> str:
    """What a loader with processes says where ``/dev/shm`` is another one."""
    script = """
import torch
from torch.utils.data import Dataset
from cxrlit.core.errors import ConfigError
from cxrlit.data.loaders import PROCESS_OPTIONS, ProcessLoader
class Batches(Dataset):
    def __len__(self): return 4
    def __getitems__(self, rows): return {"image": torch.zeros(2_000_000)}
if __name__ == "__main__":
    try: print(sum(1 for _ in ProcessLoader(Batches(), batch_size=2, num_workers=2, **PROCESS_OPTIONS)), "batches")
    except ConfigError as error: print(error)
"""
    mount = f'mount -t tmpfs -o {shared_memory} none /dev/shm && exec "$0" -c "$1"'
    command = ["unshare", "-mr", "sh", "-c", mount]
    if subprocess.run([*command[:-1], mount.partition(" &&")[0]], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount another /dev/shm")
    ran = subprocess.run([*command, sys.executable, script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_batches_need_no_shared_memory() -> None:
    assert load_with("size=1M") == "2 batches\n"  # of 16 MB each


@pytest.mark.slow
@pytest.mark.parametrize("shared_memory", SMALL)
def test_shared_memory_without_room_for_a_lock_is_named_with_both_remedies(shared_memory: str) -> None:
    said = load_with(shared_memory)
    assert said.count("\n") == 1
    for part in ("/dev/shm has none", "trainer.num_workers=0", "--shm-size=64m"):
        assert part in said
