"""Train up to a goal: plan the chain, reuse what is finished, go on with what was cut off, run the rest."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from pytorch_lightning import Callback

from cxrlit.config import Precision, TrainConfig
from cxrlit.core.console import say, show_path
from cxrlit.core.distributed import after_rank_0, from_rank_0, join_ranks
from cxrlit.core.files import hold_lock
from cxrlit.core.ranks import rank
from cxrlit.core.signals import catch_signals
from cxrlit.data.dataset import LoadedData, load_data
from cxrlit.training.checkpoint import find_checkpoint, read_checkpoint
from cxrlit.training.checks import check_ancestors, check_images, check_labels, check_start
from cxrlit.training.hardware import check_accelerator
from cxrlit.training.phase import Result, run_phase, start_network
from cxrlit.training.phase_folder import read_done
from cxrlit.training.plan import PlannedPhase, hash_start, plan_chain, print_data, print_plan
from cxrlit.training.resume import drop_states
from cxrlit.training.trainer import check_buildable, quiet_lightning

TO_RUN = ("run", "resume", "start over")


def train(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> Result:
    """Train the goal and whatever comes before it; what is finished is reused.

    Args:
        config: From ``read_config``.
        callbacks: What watches the goal, and changes no result: it is no part of the phase's id.

    Returns:
        The goal's phase, finished.

    Raises:
        CXRLitError: Whatever the user can mend; nothing is left half-written.
    """
    quiet_lightning()
    check_accelerator(config.trainer.accelerator)
    join_ranks(config.trainer)
    before: Path | None = None
    seen: set[str] = set()
    if config.init_from is not None:
        before = find_checkpoint(Path(config.init_from)).resolve()
        config = config.model_copy(update={"init_from": str(before)})
        seen = from_rank_0(partial(read_start, before, config))
    start = from_rank_0(partial(hash_start, config))
    data = after_rank_0(partial(load_data, config.data, config.labels, Path(config.cache_dir)))
    phases, precision = from_rank_0(partial(plan_work, config, data, seen, start, before))

    for number, phase in enumerate(phases, start=1):
        if phase.status in TO_RUN:
            later = [other for other in phases[number:] if other.status in TO_RUN]
            waiting = f"waiting for another process that trains {show_path(phase.folder)}"
            with catch_signals(), hold_lock(phase.folder, waiting) if rank() == 0 else nullcontext():
                if from_rank_0(partial(read_done, phase.folder)) is None:
                    run_phase(phase, config, data, precision, before, later, callbacks if phase is phases[-1] else ())
        if phase.status != "not needed":
            from_rank_0(partial(drop_states, phase.folder))  # where a kill came between the record and this
        before = phase.folder
    facts = from_rank_0(partial(read_done, phases[-1].folder))
    assert facts is not None
    result = Result(phases[-1].folder, facts["best_epoch"], facts["best_val_auroc_macro"])
    say(f"Trained: {show_path(result.folder)} ({result.describe()}, {data.describe_split()})")
    say(f"Evaluate it: python evaluate.py ckpt={show_path(result.folder)}")
    return result


def read_start(path: Path, config: TrainConfig) -> set[str]:
    """Check what ``init_from`` names; the patients that it was trained on."""
    checkpoint = read_checkpoint(path)
    check_start(checkpoint, config)
    return set(checkpoint.facts.trained_patients)


def plan_work(
    config: TrainConfig, data: LoadedData, seen_patients: set[str], start: str, before: Path | None
) -> tuple[list[PlannedPhase], Precision]:
    """Plan the chain, print the plan, and check it: what can fail does so here, before anything is written."""
    check_ancestors(data, seen_patients)
    phases, precision = plan_chain(config, data, start)
    print_data(data)
    print_plan(phases, precision)
    if any(phase.status in TO_RUN for phase in phases):
        check_labels(data)
    for phase in phases:
        if phase.status in TO_RUN:
            check_buildable(phase, config)
        elif phase.status == "done":
            check_images(phase, config, data)
    if phases[0].status in TO_RUN:
        start_network(config, before)
    return phases, precision
