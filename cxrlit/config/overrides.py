"""``KEY=VALUE`` overrides: expand the home folder, quote values, and explain why Hydra's grammar rejects them.

Hydra parses an unquoted value with a grammar in which most characters other than letters, digits and path
characters are special. The shell removes one pair of quotes, so a text needs two: ``KEY='"VALUE"'``.

Source: https://hydra.cc/docs/1.3/advanced/override_grammar/basic/.
"""

import os
import re
import shlex
import unicodedata
from collections.abc import Sequence

from cxrlit.config.sweep import quote
from cxrlit.core.command_line import format_command

PLAIN = re.compile(r"[\w/\\+.$%*@?|: -]*", re.ASCII)
"""Characters of an unquoted value."""
KEY = re.compile(r"[+~]*[\w$./@:-]*", re.ASCII)
HOME = re.compile(r"(?<=[=\[,])\s*(~[\w.-]*(?:/[^,\[\]{}'\"]*)?)(?=[,\]]|$)")
LISTS = frozenset({
    "age_bands", "chain", "ckpt", "data.sources", "data.views", "labels", "must_improve", "sampler.labels", "sizes",
    "subgroups",
})  # fmt: skip
"""Keys with a list as value."""
PATHS = frozenset({
    "baseline", "cache_dir", "candidate", "ckpt", "dir", "init_from", "out", "predictions", "root", "runs_dir",
    "split_file", "store", "table", "targets", "thresholds", "weights",
})  # fmt: skip
"""Last parts of the keys that may have a path as value."""

SEVERAL = ("logger", "callbacks")
"""Groups with named entries, of which several choices can be combined."""
FILES = (".ckpt", ".csv", ".gz", ".json", ".parquet", ".pt", ".pth", ".tsv")
TYPOGRAPHIC = str.maketrans({**dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
                             **dict.fromkeys("\u201c\u201d\u2018\u2019")})  # fmt: skip
"""Dashes and quotes that word processors substitute for those of the keyboard."""


def name_key(override: str) -> str:
    """The key that an override sets.

    >>> name_key("+callbacks.mine._target_=my.Class")
    'callbacks.mine._target_'
    """
    return override.lstrip("+~").partition("=")[0]


def expand_home(override: str) -> str:
    """Expand ``~/`` at the start of a value or of a list's entries: Hydra rejects it, and shells leave it alone.

    >>> expand_home("data.root=~nobody-here/x"), expand_home("~callbacks.ema")
    ('data.root=~nobody-here/x', '~callbacks.ema')
    """

    def replace(found: re.Match[str]) -> str:
        path = os.path.expanduser(found[1])
        return found[1] if path == found[1] else quote(path)

    key, equal, value = override.partition("=")
    return key + HOME.sub(replace, equal + value)


def quote_for_shell(key: str, value: str) -> str:
    """Quote an override so that its value passes the shell and Hydra unchanged.

    >>> quote_for_shell("data.root", "/x,y")
    'data.root=\\'"/x,y"\\''
    """
    return f"{key}={shlex.quote(_quote_twice(value))}"


def quote_list_for_shell(key: str, values: Sequence[str]) -> str:
    """Quote a list of texts so that it passes the shell and Hydra unchanged.

    >>> quote_list_for_shell("ckpt", ["runs/a", "runs/b (2)"])
    'ckpt=\\'[runs/a,"runs/b (2)"]\\''
    """
    entries = ",".join(value if PLAIN.fullmatch(value) else _quote_twice(value) for value in values)
    return f"{key}={shlex.quote(f'[{entries}]')}"


def write_anew(override: str) -> str:
    """Overrides that replace a whole section, so that none of its old keys remain.

    >>> write_anew("loss={_target_: mine.Loss, gamma: 2}")
    "~loss '+loss={_target_: mine.Loss, gamma: 2}'"
    """
    return f"~{name_key(override)} {shlex.quote('+' + override.lstrip('+'))}"


def explain_syntax(overrides: Sequence[str], place: int) -> str:
    """Why an override cannot be parsed, and how to write it.

    Args:
        overrides: All overrides; a space in a value splits it in two.
        place: Position of the override.
    """
    text = overrides[place]
    key, equal, value = text.partition("=")
    if not equal:
        return explain_space(overrides, place) or (
            f"{text}: it cannot be understood; settings are given as KEY=VALUE, and --help shows them"
        )
    if not key.strip("+~") or not KEY.fullmatch(key):
        odd = _find_odd(key, KEY)
        fault = f"{odd} is in no key" if odd else "there is no key before ="
        return f"{text}: {fault}; settings are given as KEY=VALUE"
    function = re.fullmatch(r"([a-z_]+)\(.*\)", value)
    if function:
        return (
            f"{text}: it cannot be understood: {function[1]}(...) is read as a function; there are choice, range, "
            f"interval and glob; a text is written {quote_for_shell(key, value)}"
        )
    mended = _mend(value)
    if mended:
        return f"{text}: {mended[0]}: {key}={mended[1]}"
    joined = _join_split(overrides, place)
    if joined:
        return f"{text}: a space ends a setting: write {shlex.quote(joined)}"
    if value.startswith("[") and "]" not in value:
        return f"{text}: it cannot be understood: a list ends with ]; a text is written {quote_for_shell(key, value)}"
    odd = _find_odd(value[1:-1] if value[:1] + value[-1:] == "[]" else value, PLAIN)
    if not odd:
        return f"{text}: it cannot be understood; a text is written {quote_for_shell(key, value)}"
    return f"{text}: it cannot be understood: a value with {odd} needs quotes: {_quote_parts(key, value)}"


def explain_space(overrides: Sequence[str], place: int) -> str:
    """How to write an argument without = that a space or a colon has caused; empty if neither has."""
    text, before, after = overrides[place], overrides[place - 1] if place else "", overrides[place + 1 : place + 3]
    if after and after[0].startswith("="):
        return f"{text}: no space stands around =: {text}{''.join(after if after[0] == '=' else after[:1])}"
    if re.match(r"[\w.]+:[^/\\]|[\w.]+\.\w+:", text):
        return f"{text}: settings are given as KEY=VALUE: {text.replace(':', '=', 1)}"
    key, equal, value = before.partition("=")
    is_text = key.rpartition(".")[2] in PATHS or key.startswith("data.columns.")
    if equal and is_text and "." not in value.rpartition("/")[2]:
        return f"{text}: a space ends a setting: write {quote_for_shell(key, f'{value} {text}')}"
    if re.fullmatch(r"[a-z_]\w*(\.\w+)*", text) and not text.endswith(FILES) and after and "=" not in after[0]:
        return f"{text} {after[0]}: settings are given as KEY=VALUE: {text}={after[0]}"
    return ""


def explain_several(override: str, command: str) -> str:
    """Why a command that runs once rejects a value with a comma, and what the user may have meant.

    Args:
        override: The override.
        command: Name of the command; only ``train`` can sweep.
    """
    key, value = name_key(override), override.partition("=")[2]
    text = f"a text with a comma is written {quote_for_shell(key, value)}"
    is_path = "/" in value or "\\" in value or key.rpartition(".")[2] in PATHS
    if key in LISTS or key in SEVERAL:
        return f"{override}: {key} is a list: {key}=[{value}]" + (f"; {text}" if is_path else "")
    if is_path:
        return f"{override}: a comma separates values: {text}"
    said = "several values are a sweep" if command == "train" else "it takes one value"
    hints = [format_command("train -m ...")] if command == "train" else []
    if key == "data":
        hints.append(f"both together are data=several data.sources=[{value}]")
    if re.fullmatch(r"-?0,\d+", value):
        hints.append(f"a number has a point: {key}={value.replace(',', '.')}")
    if "." in key and not re.fullmatch(r"[\d,. e-]+", value):
        hints.append(text)
    return f"{override}: {said}" + (f": {'; '.join(hints)}" if hints else "")


def _mend(value: str) -> tuple[str, str] | None:
    """The mistake in a value and the corrected value; None unless the correction is obvious."""
    if value.startswith("="):
        return "one = is enough", value.lstrip("=")
    if "/" in value:
        return None
    if re.fullmatch(r"\[.*,\s*\]", value) and PLAIN.fullmatch(value[1:-1].replace(",", "")):
        return "no comma stands behind the last entry", re.sub(r"[,\s]+\]$", "]", value)
    if value.endswith((",", ";")) and value[:-1] and PLAIN.fullmatch(value[:-1]):
        return f"no {value[-1]} stands at its end", value[:-1]
    typed = value.translate(TYPOGRAPHIC)
    odd = next((character for character in value if ord(character) in TYPOGRAPHIC), "")
    return (f"{odd} is another character than on the keyboard", typed) if odd and PLAIN.fullmatch(typed) else None


def _join_split(overrides: Sequence[str], place: int) -> str:
    """Rejoin a list that its spaces have split into several arguments; empty if there is none or its end is missing."""
    if overrides[place].partition("=")[2][:1] not in ("[", "{") or overrides[place].endswith(("]", "}")):
        return ""
    for stop in range(place + 1, len(overrides)):
        if "=" in overrides[stop]:
            break
        if overrides[stop].endswith(("]", "}")):
            return " ".join(overrides[place : stop + 1])
    return ""


def _quote_parts(key: str, value: str) -> str:
    """Quote the parts of an override that need quotes: the value, or entries of a plain list."""
    inner = value[1:-1]
    # An apostrophe between letters is not a quotation mark.
    if value[:1] + value[-1:] != "[]" or re.search(r"[\[\]{}'\"]", re.sub(r"(?<=\w)'(?=\w)", "", inner)):
        return quote_for_shell(key, value)
    return quote_list_for_shell(key, [part.strip() for part in inner.split(",")])


def _quote_twice(text: str) -> str:
    escaped = re.sub(r"(\\*)(\"|$)", lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'"{escaped}"'


def _find_odd(text: str, allowed: re.Pattern[str]) -> str:
    """The first character that a pattern does not allow, in readable form; empty if all are allowed."""
    found = allowed.match(text)
    rest = text[found.end() if found else 0 :]
    if not rest:
        return ""
    character = rest[0]
    if character.isprintable() and not unicodedata.combining(character):
        return character
    return unicodedata.name(character, f"the character U+{ord(character):04X}").lower()
