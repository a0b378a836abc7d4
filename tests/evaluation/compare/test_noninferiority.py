"""The answer follows from the intervals, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from cxrlit.evaluation.compare.changes import Comparison, compare_replicates
from cxrlit.evaluation.compare.noninferiority import Question, answer, describe_answer, describe_question
from cxrlit.metrics.bootstrap import Replicates

LABELS = ("Mass", "Nodule", "Pneumonia")
ASK = Question(must_improve=("Nodule",), margin=0.01)


def compare_made_up(changes: list[float], errors: list[float]) -> Comparison:
    """A comparison with changes and standard errors as wished, of labels that owe nothing to each other."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 3))
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0, ddof=1)
    influence = rng.normal(size=(5000, 3))
    start, many = np.array([0.7, 0.7, 0.7]), np.full(3, 900)
    before = Replicates(start, start + 1e-6 * noise, influence * 1e-6, many)
    after = Replicates(start + changes, start + changes + noise * (np.array(errors) + 1e-6), influence, many)
    return compare_replicates("auroc", before, after, LABELS, np.full(3, np.nan))


@pytest.mark.parametrize(
    ("changes", "errors", "verdicts", "verdict"),
    [
        ([0.00, 0.05, 0.00], [0.003, 0.003, 0.003], ["yes", "yes", "yes", "yes"], "yes"),
        ([0.00, 0.05, 0.00], [0.003, 0.03, 0.003], ["yes", "undecided", "yes", "undecided"], "undecided"),
        ([0.00, -0.05, 0.09], [0.003, 0.003, 0.003], ["yes", "no", "yes", "yes"], "no"),
        ([-0.05, 0.09, 0.00], [0.003, 0.003, 0.003], ["no", "yes", "yes", "yes"], "no"),
        ([-0.008, 0.09, 0.00], [0.003, 0.003, 0.003], ["undecided", "yes", "yes", "yes"], "undecided"),
        ([-0.03, 0.02, -0.03], [0.003, 0.003, 0.003], ["no", "yes", "no", "no"], "no"),
        # 2.1 errors: enough for one label, not for one of three
        ([0.00, 0.021, 0.00], [0.001, 0.01, 0.001], ["yes", "undecided", "yes", "yes"], "undecided"),
        # 2.1 errors below the margin: the plain interval is, Holm's is not
        ([-0.031, 0.09, 0.00], [0.01, 0.001, 0.04], ["undecided", "yes", "undecided", "undecided"], "undecided"),
        # the same beside a label that is surely not harmed: no other is left that could be
        ([-0.031, 0.09, 0.00], [0.01, 0.001, 0.001], ["no", "yes", "yes", "yes"], "no"),
    ],
)
def test_the_answer_follows_from_the_intervals(
    changes: list[float], errors: list[float], verdicts: list[str], verdict: str
) -> None:
    said = answer(compare_made_up(changes, errors), ASK)
    assert [part.label for part in said.criteria] == [*LABELS, "macro"]
    assert [part.asks for part in said.criteria] == ["not harmed", "improved", "not harmed", "rose"]
    assert [part.verdict for part in said.criteria] == verdicts
    assert said.verdict == verdict


def test_the_margin_and_the_macro_are_as_asked() -> None:
    made_up = compare_made_up([-0.03, 0.02, -0.03], [0.003] * 3)
    generous = answer(made_up, replace(ASK, margin=0.05, macro_must_rise=False))
    assert generous.verdict == "yes"
    assert [part.label for part in generous.criteria] == list(LABELS)
    strict = answer(compare_made_up([0.0, 0.05, 0.0], [0.003] * 3), replace(ASK, margin=0))
    assert [part.verdict for part in strict.criteria][:3] == ["undecided", "yes", "undecided"]
    every = answer(compare_made_up([0.05] * 3, [0.003] * 3), Question(LABELS))
    assert every.verdict == "yes"
    assert {part.asks for part in every.criteria} == {"improved", "rose"}


def test_a_question_that_cannot_be_asked_is_refused() -> None:
    made_up = compare_made_up([0.0] * 3, [0.01] * 3)
    with pytest.raises(ValueError, match="Hernia"):
        answer(made_up, Question(("Hernia",)))
    with pytest.raises(ValueError, match="negative"):
        answer(made_up, replace(ASK, margin=-0.1))


@pytest.mark.parametrize(
    ("changes", "errors", "sentence"),
    [
        ([0.0, 0.05, 0.0], [0.003] * 3, "yes: Nodule improved, no other label was harmed and the macro rose"),
        ([-0.05, 0.06, -0.05], [0.003] * 3, "no: Mass and Pneumonia were harmed and the macro did not rise"),
        ([0.0, -0.05, 0.09], [0.003] * 3, "no: Nodule did not improve"),
        (
            [-0.008, 0.02, 0.0],
            [0.003, 0.03, 0.003],
            "not decided by these data: whether Nodule improved, whether Mass was harmed and whether the macro rose",
        ),
    ],
)
def test_the_answer_in_words(changes: list[float], errors: list[float], sentence: str) -> None:
    assert describe_answer(answer(compare_made_up(changes, errors), ASK)) == sentence


def test_words_name_only_what_was_asked() -> None:
    made_up = compare_made_up([0.05] * 3, [0.003] * 3)
    nothing = Question((), macro_must_rise=False)
    assert describe_question(nothing, "F1") == "By F1: was no label harmed (a fall by more than 0.01)?"
    assert describe_answer(answer(made_up, nothing)) == "yes: no label was harmed"
    every = Question(LABELS)
    assert describe_answer(answer(made_up, every)) == "yes: Mass, Nodule and Pneumonia improved and the macro rose"
