"""Decide whether a candidate improved as asked: yes, no, or undecided by these data."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cxrlit.evaluation.compare.changes import Comparison, find_holm_levels
from cxrlit.html.text import list_names
from cxrlit.metrics.intervals import interval_of_change, p_of_change

Verdict = Literal["yes", "no", "undecided"]
Row = Mapping[Hashable, Any]
"""A row of ``Comparison.table``."""


@dataclass(frozen=True)
class Question:
    """The requirements on the candidate.

    Attributes:
        must_improve: Labels that must each improve.
        margin: Non-inferiority margin, >= 0: the largest fall of another label that is no harm.
        macro_must_rise: Whether the macro must rise.
    """

    must_improve: tuple[str, ...]
    margin: float = 0.01
    macro_must_rise: bool = True


@dataclass(frozen=True)
class Criterion:
    """One criterion of the answer.

    Attributes:
        label: The label, or ``macro``.
        asks: ``improved``, ``not harmed`` or ``rose``.
        verdict: yes, no or undecided.
        why: The numbers, in words.
    """

    label: str
    asks: str
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Answer:
    """The verdict and its criteria: the labels in order, then the macro."""

    verdict: Verdict
    question: Question
    criteria: tuple[Criterion, ...]


def answer(comparison: Comparison, question: Question) -> Answer:
    """Decide whether the labels that must improve did, no other label was harmed, and the macro rose.

    Each criterion is compared with a paired 95 % interval of the change:

    - **improved**: yes if the interval lies above 0, no if no part of it does, else undecided. The interval is
      corrected by Holm over all labels: "Nodule improved" can be claimed of any label that shows it, and by chance one
      of 8 labels shows it more often than one in 40 times.
    - **not harmed**: yes if the plain interval lies above ``-margin``; no if the interval corrected by Holm over the
      labels that may not be harmed lies below ``-margin``; else undecided. The two differ on purpose. "None was harmed"
      needs all labels, and a claim that needs all its parts keeps its error without correction (an intersection-union
      test); "one was harmed" needs only one label, so it needs the correction.
    - **rose**: yes if the plain interval of the macro lies above 0, no if no part of it does. It is a single test.

    The answer is **no** if any criterion is no, **yes** if all are yes, else **undecided**: too few patients give
    neither a yes nor a no. A criterion without an interval is undecided, with the reason. By intersection-union, a
    candidate that fails any criterion gets a yes with a probability of at most 2.5 %.

    Args:
        comparison: Comparison of AUROC or F1.
        question: The requirements.

    Raises:
        ValueError: A label that must improve is not among those compared, or the margin is negative.

    Source: Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 1982
        (intersection-union); Piaggio et al., "Reporting of noninferiority and equivalence randomized trials", JAMA 2012
        (yes, no and undecided from the interval and the margin).
    """
    *labels, macro = comparison.table.to_dict("records")
    missing = [label for label in question.must_improve if label not in {row["label"] for row in labels}]
    if missing:
        raise ValueError(f"{missing[0]} must improve and is not among the labels compared")
    if question.margin < 0:
        raise ValueError(f"a margin of {question.margin} is negative")
    others = [column for column, row in enumerate(labels) if row["label"] not in question.must_improve]
    guarded = comparison.replicates.only(others)
    levels = find_holm_levels(p_of_change(guarded, -question.margin))
    highest = dict(zip(others, interval_of_change(guarded, levels).high.tolist(), strict=True))
    criteria = [
        _judge_harm(row, highest[column], question.margin)
        if column in highest
        else _judge_rise(row, "improved", "low_holm", "high_holm")
        for column, row in enumerate(labels)
    ]
    if question.macro_must_rise:
        criteria.append(_judge_rise(macro, "rose"))
    verdicts = {criterion.verdict for criterion in criteria}
    verdict: Verdict = "no" if "no" in verdicts else "undecided" if "undecided" in verdicts else "yes"
    return Answer(verdict, question, tuple(criteria))


def describe_question(question: Question, metric: str) -> str:
    """Write the question as a sentence.

    >>> describe_question(Question(("Nodule", "Mass"), macro_must_rise=False), "AUROC")
    'By AUROC: did Nodule and Mass improve and was no other label harmed (a fall by more than 0.01)?'
    """
    parts = [
        f"did {list_names(question.must_improve)} improve" if question.must_improve else "",
        f"was no {'other ' if question.must_improve else ''}label harmed (a fall by more than {question.margin:g})",
        "did the macro rise" if question.macro_must_rise else "",
    ]
    return f"By {metric}: {list_names([part for part in parts if part])}?"


def describe_answer(answer: Answer) -> str:
    """Write the answer as a sentence: what holds, what does not, or what is undecided.

    >>> asked = Question(("Nodule",))
    >>> describe_answer(Answer("no", asked, (Criterion("Nodule", "improved", "no", ""),)))
    'no: Nodule did not improve'
    """
    found = [criterion for criterion in answer.criteria if criterion.verdict == answer.verdict]
    improved, harmed, rose = (
        [criterion.label for criterion in found if criterion.asks == asks]
        for asks in ("improved", "not harmed", "rose")
    )
    were, other = "were" if len(harmed) > 1 else "was", "other " if improved else ""
    up, down = list_names(improved), list_names(harmed)
    start, *sentences = {
        "yes": ("yes", f"{up} improved", f"no {other}label was harmed", "the macro rose"),
        "no": ("no", f"{up} did not improve", f"{down} {were} harmed", "the macro did not rise"),
        "undecided": (
            "not decided by these data",
            f"whether {up} improved",
            f"whether {down} {were} harmed",
            "whether the macro rose",
        ),
    }[answer.verdict]
    said = [text for text, about in zip(sentences, (improved, harmed, rose), strict=True) if about]
    return f"{start}: {list_names(said)}"


def _judge_rise(row: Row, asks: str, low: str = "low", high: str = "high") -> Criterion:
    if row["reason"]:
        return Criterion(row["label"], asks, "undecided", f"no interval: {row['reason']}")
    verdict: Verdict = "yes" if row[low] > 0 else "no" if row[high] <= 0 else "undecided"
    over = "" if row["label"] == "macro" else " for all labels at once"
    why = f"changed by {row['change']:+.4f}, [{row[low]:+.4f}, {row[high]:+.4f}]{over}"
    return Criterion(row["label"], asks, verdict, why)


def _judge_harm(row: Row, highest: float, margin: float) -> Criterion:
    if row["reason"]:
        return Criterion(row["label"], "not harmed", "undecided", f"no interval: {row['reason']}")
    verdict: Verdict = "yes" if row["low"] > -margin else "no" if highest < -margin else "undecided"
    why = f"changed by {row['change']:+.4f}, [{row['low']:+.4f}, {row['high']:+.4f}]; {-margin:+.4f} is tolerated"
    return Criterion(row["label"], "not harmed", verdict, why)
