"""README.md and docs/: every link resolves, every command is understood, every Python block compiles."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import NAMES, PAGES, list_anchors, list_links, read_blocks, split_words, write_files
from tiny import REPO, launch_line

from cxrlit.commands import bundle_commands, config_commands
from cxrlit.commands.cli import OF_ABLATION, main

LANGUAGES = {"console", "python", "yaml", "text", "json"}
OTHER_PROGRAMS = {"aws", "cat", "cd", "curl", "git", "jupyter", "pre-commit"}
"""Programs that are not ours, whose options are not checked here."""


def check_command(line: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A command is one of ours and its settings are valid, or it is one that is known to exist."""
    words = split_words(line.replace("<id>", "0123abcd").replace("<key>", "0123abcd").replace("0,1,2,3,4", "0,1"))
    program, arguments = words[0], words[1:]
    if program == "cxrlit" and arguments[0] == "ablate":
        settings = [OF_ABLATION.sub(r"\1hydra.sweeper.", text) for text in arguments[1:]]
        program, arguments = "train.py", ["-m", "hydra/sweeper=ablation", *settings]
    elif program == "cxrlit" and arguments[0] in ("train", "evaluate"):
        program, arguments = f"{arguments[0]}.py", arguments[1:]
    if "hydra/launcher=" in line:  # jobs would start: the settings of the launcher are shown in place of it
        arguments = ["--cfg", "hydra", *(text for text in arguments if text.startswith(("hydra", "+hydra")))]
    if "-m" in arguments and "data=" not in line:  # the plan of a sweep reads the data
        arguments += ["data.n_patients=40", "data.image_px=32"]
    if program in ("train.py", "evaluate.py"):
        checked, outcome = launch_line(arguments, program.removesuffix(".py"))
        assert outcome.code == 0, f"{line}\n{outcome.err}"
        assert checked or {"--help", "--cfg"} & set(arguments), line
    elif program == "cxrlit":
        ran: list[Any] = []
        monkeypatch.setattr(config_commands, "_find_task", lambda options: ran.append)
        monkeypatch.setattr(bundle_commands, "run", ran.append)
        if arguments != ["--help"]:
            main(arguments)
            assert ran, line
    elif program == "make":
        targets = {word for word in arguments if "=" not in word}
        made = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
        assert targets <= set(made), line
    elif program == "pip":
        extras = re.findall(r"\[([\w,]+)\]", line)
        known = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {name for group in extras for name in group.split(",")} <= set(known), line
    elif program == "python":
        assert (folder / words[1]).is_file() or (REPO / words[1]).is_file(), line
    else:
        assert program in OTHER_PROGRAMS, line


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_understood(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in read_blocks(name):
        assert block.language in LANGUAGES, f"{block.where}: a block needs a language"
        if block.language == "console":
            assert block.list_commands(), f"{block.where}: no line begins with $"
        for line in block.list_commands() if block.language == "console" else []:
            check_command(line, monkeypatch, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_python_and_yaml_block_can_be_read(name: str) -> None:
    for block in read_blocks(name):
        if block.language == "python":
            compile(block.text, block.where, "exec")
        if block.language == "yaml":
            assert yaml.safe_load(block.text), block.where


@pytest.mark.parametrize("name", NAMES)
def test_every_link_resolves_without_network(name: str) -> None:
    page = REPO / name
    for link in list_links(name):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name}: {link}"
        assert not anchor or anchor in list_anchors(target), f"{name}: {link}"


def test_every_page_is_in_the_navigation() -> None:
    text = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in PAGES if page.parent == REPO / "docs")


def test_a_shell_reads_the_commands_as_they_are_shown() -> None:
    assert split_words("torchrun --nproc-per-node=4 -m cxrlit train a=1  # why") == ["cxrlit", "train", "a=1"]
    assert split_words("python train.py 'a=[1, 2]'") == ["train.py", "a=[1, 2]"]
