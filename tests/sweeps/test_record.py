"""What jobs leave in a folder that others can write to."""

from pathlib import Path

import pytest

from cxrlit.core.errors import CXRLitError
from cxrlit.sweeps.ranking import print_ranking, update_ranking
from cxrlit.sweeps.record import Record, job_record_path, read_records, write_job_record

LEVERS = {"lever": "baseline", "seed": "0"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "is damaged"),
        (b'{"job": ' + b"[" * 100_000, "is damaged"),
        (b'{"job": 2, "values": {}, "status": "done", "lever": 1}', "is damaged"),
        (b'{"job": 3, "values": {"lever": "x", "seed": "0"}, "status": "done"}', "is of job 3"),
        (b'{"job": 2, "values": {"seed": "0"}, "status": "done"}', "varies other keys than the jobs before it"),
    ],
)
def test_a_record_that_is_none_of_the_sweep_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    write_job_record(tmp_path, Record(job=1, values=LEVERS, status="done"))
    path = job_record_path(tmp_path, 2)
    path.write_bytes(content)
    with pytest.raises(CXRLitError, match=rf"^{path}: it {message}: remove it, the job is run again$"):
        read_records(tmp_path)
    path.unlink()
    assert [record.job for record in read_records(tmp_path)] == [1]


def test_a_value_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no markup of the table, and no formula of the picture."""
    roots = ["[/nih]", r"/a$\nope{$b"]
    for job, root in enumerate(roots, start=1):
        values = {"data.root": root}
        write_job_record(tmp_path, Record(job=job, values=values, status="done", auroc_macro=0.5, best_epoch=1))
    print_ranking(*update_ranking(tmp_path), tmp_path)
    shown = capsys.readouterr().out
    assert all(root in shown for root in roots)
    assert (tmp_path / "ranking.png").is_file()
