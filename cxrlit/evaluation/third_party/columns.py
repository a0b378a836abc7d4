"""Identify the columns of another program's tables: by the config, else by name. Nothing is guessed."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cxrlit.config.evaluate import PredictionColumnsConfig
from cxrlit.core.errors import ConfigError, DataError, name_some
from cxrlit.core.labels import FIXED_COLUMNS, LABELS, simplify_name
from cxrlit.data.tables.own_columns import find_own_columns
from cxrlit.data.tables.text_table import clip
from cxrlit.evaluation.predictions import PROB, TARGET, check_label_names

ROLES = ("image", "patient", "split", "view", "age", "sex")
NO_LABELS = {simplify_name(name) for name in (*FIXED_COLUMNS, "split", "index", "row", "unnamed 0")}
"""Column names that are never labels."""

SURE = {simplify_name(label) for label in LABELS}
"""Column names that are always labels."""

CLOSE = 0.8
"""Similarity, 0 to 1, from which two names may be the same."""

MAX_COMPARED = 200
"""Most names of each table that are compared."""


class LabelColumns(NamedTuple):
    """The columns of the labels.

    Attributes:
        scores: The score column of each label, in the predictions.
        targets: The target column of each label that has targets.
        in_labels: Whether the targets come from ``labels`` rather than from the predictions.
        is_told: Whether the names or the config distinguish scores from targets.
        notes: Columns that are not used, in words.
    """

    scores: dict[str, str]
    targets: dict[str, str]
    in_labels: bool
    is_told: bool
    notes: list[str]


@dataclass(frozen=True)
class Candidates:
    """Columns that may be labels, by the label's name, and whether they are certainly labels."""

    columns: Mapping[str, str]
    are_sure: bool

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """The columns of each name, ignoring case, underscores and spaces."""
        found: dict[str, list[str]] = {}
        for name, column in self.columns.items():
            found.setdefault(simplify_name(name), []).append(column)
        return found

    def find(self, label: str, path: Path, key: str) -> str | None:
        """Find the column of a label; None without one.

        Raises:
            DataError: Two columns match.
        """
        found = self.by_name.get(simplify_name(label), [])
        if len(found) > 1:
            raise DataError(f"{path}: the columns {name_some(found)} may both be {clip(label)}: say columns.{key}")
        return found[0] if found else None

    def is_sure(self, name: str) -> bool:
        """Whether a name is certainly a label."""
        return self.are_sure or simplify_name(name) in SURE


def find_roles(headers: Mapping[Path, Sequence[str]], columns: PredictionColumnsConfig) -> dict[Path, dict[str, str]]:
    """Find the columns of image, patient, split, view, age and sex in each table.

    Raises:
        DataError: A table has no image column, a column of the config is missing, or two columns may have one role.
    """
    found: dict[Path, dict[str, str]] = {path: {} for path in headers}
    for role in ROLES:
        names = getattr(columns, role)
        for path, header in headers.items():
            own = [role] if role in header else find_own_columns(header).get(role, [])
            there = own if names is None else [name for name in names if name in header]
            if len(there) > 1 and names is None:
                raise DataError(
                    f"{path}: the columns {name_some([clip(name) for name in there])} may each be the {role}: name the "
                    f"one that is with columns.{role}"
                )
            if there:
                found[path][role] = there[0]
        without = [path for path in headers if role not in found[path]]
        if without and (role == "image" or (names and len(without) == len(headers))):
            header = name_some([clip(name) for name in headers[without[0]] if name], limit=12)
            wanted = " or ".join([role] if names is None else names)
            both = "" if len(headers) == 1 else ", or [NAME,NAME] where the two tables differ"
            raise DataError(
                f"{without[0]}: there is no column {wanted}: name it with columns.{role}=NAME{both}; the columns are "
                f"{header}"
            )
    return found


def find_labels(
    predictions: Path,
    header: Sequence[str],
    labels: Path | None,
    names: Sequence[str],
    columns: PredictionColumnsConfig,
) -> LabelColumns:
    """Find the labels and their columns.

    Args:
        predictions: The table of the scores.
        header: Its columns, without those of ``find_roles``.
        labels: The table of the targets, if there is one.
        names: Its columns, without those of ``find_roles``; without a table, the labels of a data source, or none.
        columns: Columns in the config.

    Raises:
        DataError: No label has scores and targets; two columns may be the same label, or one column has two roles; or
            a label without targets and one without scores may be the same.
        ConfigError: ``columns.targets`` names a label without scores, or goes with a data source.
    """
    of_source = labels is None and bool(names)
    if of_source and columns.targets is not None:
        raise ConfigError("columns.targets goes with a table; a data source has targets of its own")
    own = _list_candidates(header, TARGET)
    truth = Candidates({name: name for name in names}, True) if labels is None else _list_candidates(names, TARGET)
    if columns.targets is not None:
        known, wanted = Candidates(columns.targets, True), set(columns.targets.values())
        in_labels = labels is not None and (wanted <= set(names) or not wanted <= set(header))
    else:  # in the table of the scores, a label's name alone does not mark targets
        in_labels = bool(names) and (
            not own.are_sure or truth.are_sure or not own.by_name.keys().isdisjoint(truth.by_name)
        )
        known = truth if in_labels else own if own.are_sure else Candidates({}, True)

    candidates = _list_candidates([name for name in header if not name.startswith(TARGET)], PROB)
    scores = _find_scores(candidates, known, predictions) if columns.probs is None else columns.probs
    if of_source and columns.probs is None:
        scores = _spell_and_order(scores, names)
    where = labels if labels is not None and in_labels else predictions
    targets = {label: column for label in scores if (column := known.find(label, where, "targets")) is not None}
    used = set(targets.values())
    unscored = [name for name, column in known.columns.items() if column not in used]
    if columns.targets is not None and unscored:
        there = name_some([clip(label) for label in scores], limit=14)
        raise ConfigError(f"columns.targets: {clip(unscored[0])} has no scores; the labels with scores are {there}")
    if columns.probs is None:
        read = set(scores.values())
        unread = {name: column for name, column in candidates.columns.items() if column not in read}
        untold = {label: column for label, column in scores.items() if label not in targets}
        _refuse_near_misses(Candidates({**unread, **untold}, candidates.are_sure), known, unscored, predictions)
    if not targets:
        raise DataError(_say_nothing_pairs(predictions, header, scores, known))
    check_label_names(list(scores), predictions)
    _check_apart(list(scores.values()), list(targets.values()), in_labels, predictions)
    return LabelColumns(
        dict(scores),
        targets,
        in_labels,
        is_told=columns.probs is not None or candidates.are_sure or known.are_sure,
        notes=[
            *_say_unused(scores, targets, [name for name in unscored if known.is_sure(name)]),
            *_say_source("targets=FILE" if labels else "the data set" if of_source else "", in_labels, own.are_sure),
        ],
    )


def _list_candidates(header: Sequence[str], prefix: str) -> Candidates:
    """List candidates: if any name has the prefix, those columns are labels; else every column may be one."""
    prefixed = {name.removeprefix(prefix): name for name in header if name.startswith(prefix)}
    others = {name: name for name in header if name and simplify_name(name) not in NO_LABELS}
    return Candidates(prefixed, True) if prefixed else Candidates(others, False)


def _find_scores(candidates: Candidates, known: Candidates, path: Path) -> dict[str, str]:
    """Find the score columns: all with the prefix, else those named like a label."""
    found = {}
    for name, column in candidates.columns.items():
        if candidates.is_sure(name) or simplify_name(name) in known.by_name:
            candidates.find(name, path, "probs")
            found[name] = column
    return found


def _spell_and_order(scores: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    """Return the scores with the spelling and order of these labels; others follow."""
    spelled = {simplify_name(label): label for label in labels}
    named = {spelled.get(simplify_name(label), label): column for label, column in scores.items()}
    return {label: named[label] for label in dict.fromkeys([*labels, *named]) if label in named}


def _check_apart(scores: Sequence[str], targets: Sequence[str], in_labels: bool, path: Path) -> None:
    """Check that no column has two roles."""
    for columns in (scores, targets, scores if in_labels else [*scores, *targets]):
        twice = [column for column, count in Counter(columns).items() if count > 1]
        if twice:
            raise DataError(
                f"{path}: the column {clip(twice[0])} would be two things: say once what it is, with columns.probs and "
                "columns.targets"
            )


def _refuse_near_misses(left: Candidates, known: Candidates, unscored: Sequence[str], path: Path) -> None:
    """Refuse a name without targets and one without scores that may be the same label."""
    for name in list(left.columns)[:MAX_COMPARED]:
        for other in unscored[:MAX_COMPARED]:
            if (left.is_sure(name) or known.is_sure(other)) and _is_close(name, other):
                example = f"{{{clip(other)}: {clip(left.columns[name])}, ...}}"
                raise DataError(
                    f"{path}: {clip(name)} has no targets and {clip(other)} no scores: are they one label? Name the "
                    f"columns of all labels that count, columns.probs={example}"
                )


def _is_close(name: str, other: str) -> bool:
    """Whether two names may be the same: one contains all words of the other, or few letters differ."""
    first, second = simplify_name(name), simplify_name(other)
    words, others = set(first.split()), set(second.split())
    if not words or not others:
        return False
    matcher = difflib.SequenceMatcher(None, first[:60], second[:60])
    return words <= others or others <= words or (matcher.quick_ratio() >= CLOSE and matcher.ratio() >= CLOSE)


def _say_nothing_pairs(path: Path, header: Sequence[str], scores: Mapping[str, str], known: Candidates) -> str:
    if not known.columns:
        return (
            f"{path}: there are no targets: say targets=TABLE, a table with a column of them for each label, or name "
            f"the columns that hold them with columns.targets (by default {TARGET}<label>)"
        )
    there = name_some([clip(name) for name in header if name], limit=12)
    scored = name_some([clip(name) for name in scores], limit=12)
    what = f"the labels with scores are {scored}" if scores else "no label has scores"
    return (
        f"{path}: {what}, those with targets are {name_some([clip(name) for name in known.columns], limit=12)}: name "
        f"the column of each label with columns.probs={{LABEL: COLUMN, ...}}; the columns are {there}"
    )


def _say_unused(scores: Mapping[str, str], targets: Mapping[str, str], unscored: Sequence[str]) -> list[str]:
    notes = []
    untold = [clip(label) for label in scores if label not in targets]
    if untold:
        notes.append(f"no targets for {name_some(untold, 14)}: the metrics stay blank")
    if unscored:
        notes.append(f"no scores for {name_some([clip(name) for name in unscored], 14)}: left out")
    return notes


def _say_source(given: str, in_labels: bool, has_own: bool) -> list[str]:
    if in_labels and has_own:
        return [f"the targets are those of {given}; the {TARGET} columns of the predictions are not read"]
    if given and not in_labels:
        return [f"the targets are those of the predictions; {given} has none of them"]
    return []
