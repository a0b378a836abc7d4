"""How settings are typed: the remedy of a message is what a shell hands over as it was meant."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.config.overrides import expand_home, explain_several, explain_syntax, quote_for_shell

SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]
PATHS = [
    "/data/é", "/data/e\u0301", "/data/日本", "/data/Müller (2)", "/data/p(1)", "/data/[x]", "/data/{x}", "/data/a#b",
    "/data/x,y", "/data/a&b", "/data/it's", '/data/a"b', "/data/it's \"x\"", "/data/50%", "/data/a=b", "/data/a;b",
    "/data/a!b", "/data/<x>", "/data/~x", "/data/a`b`", "/data/$(x)", "/data/a^b", "/data/a\u00a0b", "/data/a b, c",
    "/data/ends with \\", "/data/\\'x", "C:\\data\\é", "#", "'", '"', "x\\\\\"y",
]  # fmt: skip


def parse(text: str) -> object:
    [override] = OverridesParser.create().parse_overrides([text])
    return override.value()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_quoting_of_a_message_works_in_a_shell(shell: str) -> None:
    show = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
    lines = [f"{shlex.join(show)} {quote_for_shell('data.root', path)}" for path in PATHS]
    done = subprocess.run([shell, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    for path, line in zip(PATHS, done.stdout.splitlines(), strict=True):
        [typed] = json.loads(line)
        assert parse(typed) == path


@settings(max_examples=200, deadline=None)
@given(value=st.text(st.characters(min_codepoint=32, max_codepoint=0x3000), min_size=1, max_size=12))
def test_every_text_can_be_quoted(value: str) -> None:
    [typed] = shlex.split(quote_for_shell("key", value))
    if "${" not in value:
        assert parse(typed) == value


@pytest.mark.parametrize(
    ("value", "entries"),
    [
        ("[Effusion,]", ["Effusion"]), ("[Mass, Effusion , ]", ["Mass", "Effusion"]),
        ("[Hampton's hump]", ["Hampton's hump"]), ("[Mass,Hampton's hump]", ["Mass", "Hampton's hump"]),
    ],
)  # fmt: skip
def test_a_list_with_a_slip_comes_back_as_the_list_that_was_meant(value: str, entries: list[str]) -> None:
    message = explain_syntax([f"labels={value}"], 0)
    typed = message[message.rindex("labels=") :]
    read: Any = parse(shlex.split(typed)[0] if "'" in typed else typed)  # a comma and a space need no shell's quotes
    assert [str(getattr(entry, "text", entry)) for entry in read] == entries


@pytest.mark.parametrize("path", PATHS)
def test_a_message_names_the_character_and_a_quoting_that_works(path: str) -> None:
    try:
        parsed = parse(f"data.root={path}")
    except Exception:
        parsed = None
    if parsed == path:
        return
    override = f"data.root={path}"
    several = isinstance(parsed, object) and type(parsed).__name__ == "ChoiceSweep"
    message = explain_several(override, "inspect") if several else explain_syntax([override], 0)
    assert message.startswith(f"{override}: ")
    assert "-m" not in message
    assert parse(shlex.split(message[message.rindex("data.root=") :])[0]) == path


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("/data/é", "é"), ("/data/e\u0301", "combining acute accent"), ("/data/a\u00a0b", "no-break space"),
        ("/data/a(b", "("), ("/data/a#b", "#"), ("/data/a&b", "&"), ("/data/it's", "'"), ("/data/日本", "日"),
    ],
)  # fmt: skip
def test_the_character_at_fault_is_named(value: str, named: str) -> None:
    assert f"a value with {named} needs quotes: " in explain_syntax([f"data.root={value}"], 0)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("data.root=~/x", "{home}/x"),
        ("data.root=~", "{home}"),
        ("data.root=~/é (1)", "{home}/é (1)"),
        ("ckpt=[~/a,~/b]", ["{home}/a", "{home}/b"]),
        ("ckpt=[~/a, /b]", ["{home}/a", "/b"]),
        ("++data.root=~/x", "{home}/x"),
        ("data.root=/x~", None),
        ("~callbacks.ema", None),
        ("~callbacks.ema=~", None),
        ("data.root='~/x'", None),
    ],
)
@pytest.mark.parametrize("home", ["/home/me", "/home/mé, me"])
def test_home_is_expanded_before_hydra_parses(
    typed: str, wanted: str | list[str] | None, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    if typed == "~callbacks.ema=~":
        assert expand_home(typed).startswith("~callbacks.ema=")
    elif wanted is None:
        assert expand_home(typed) == typed
    else:
        filled = [one.format(home=home) for one in wanted] if isinstance(wanted, list) else wanted.format(home=home)
        assert parse(expand_home(typed)) == filled


def test_another_users_home_is_expanded_where_there_is_one() -> None:
    assert expand_home("data.root=~nobody-here/x") == "data.root=~nobody-here/x"
    root = Path("~root").expanduser()
    assert parse(expand_home("data.root=~root/x")) == f"{root}/x"
