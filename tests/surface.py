"""Write down what a user can see, in tests/surface.txt, so that each change of it is a diff.

    python tests/surface.py            rewrite tests/surface.txt
    python tests/surface.py --check    show how tests/surface.txt differs; exit code 1 if it does

Nothing here depends on where the package does something: commands are run, settings are composed, and messages are read
from the sources without the names of modules and functions.
"""

import argparse
import difflib
import inspect
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from surface_messages import read_messages
from surface_outputs import list_files, list_shown, run, run_all

# Everything that this script imports from the package.
import cxrlit
from cxrlit import config as schemas

SCHEMAS = {
    "train": schemas.TrainConfig,
    "evaluate": schemas.EvaluateConfig,
    "inspect": schemas.InspectConfig,
    "prepare": schemas.PrepareConfig,
    "compare": schemas.CompareConfig,
    "export": schemas.ExportConfig,
}
SWEEPERS = {"optuna": schemas.SweepConfig, "ablation": schemas.AblationConfig}

REPO = Path(__file__).resolve().parents[1]
CONF = REPO / "conf"
SURFACE = REPO / "tests" / "surface.txt"
LIMITS = {
    **{"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"},
    **{"minLength": "length >=", "maxLength": "length <=", "minItems": "items >=", "pattern": "like"},
}
"""Keywords of JSON schema, and how they are written here."""


def flat(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() else json.dumps(value)


# Commands


def list_commands() -> Iterator[str]:
    for script in ("train.py", "evaluate.py"):
        shown = subprocess.run([sys.executable, REPO / script, "--help"], capture_output=True, text=True, check=True)
        yield from (f"{script} --help: {line}" for line in shown.stdout.splitlines() if line.strip())
    program = catch_parser()
    yield from describe_parser("cxrlit", program)
    for name in sorted(get_commands(program).keys() - {"train", "evaluate", "ablate"}):  # the same as the scripts above
        yield from describe_parser(f"cxrlit {name}", get_commands(catch_parser(name))[name])
    for name in cxrlit.__all__:
        for member in sorted(vars(getattr(cxrlit, name))):
            value = getattr(getattr(cxrlit, name), member)
            if not member.startswith("_") and callable(value):
                arguments = [one.replace(annotation=one.empty) for one in inspect.signature(value).parameters.values()]
                yield f"cxrlit.{name}.{member}({', '.join(map(str, arguments))})"


def catch_parser(*arguments: str) -> argparse.ArgumentParser:
    """The parser that ``cxrlit`` makes for these arguments."""
    caught = []

    def catch(parser: argparse.ArgumentParser, *_: Any) -> None:
        caught.append(parser)
        raise SystemExit

    with patch.object(argparse.ArgumentParser, "parse_known_args", catch):
        run("cxrlit", *arguments)
    return caught[0]


def get_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices


def describe_parser(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"{name}: {text}" for text in (parser.description, parser.epilog) if text)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from (f"{name} {choice.dest}: {choice.help}" for choice in action._choices_actions)
        elif not isinstance(action, argparse._HelpAction):
            names = [*action.option_strings, *[action.metavar or action.dest.upper()] * (action.nargs != 0)]
            facts = {"nargs": action.nargs, "choices": action.choices, "default": action.default}
            shown = [f"{fact} {flat(value)}" for fact, value in facts.items() if value is not None]
            yield f"{name} {' '.join(names)}: {'; '.join([*shown, *['required'] * action.required, action.help or ''])}"


# Settings


def list_settings() -> Iterator[str]:
    """A line on the type of each key and one on its value, with the commands and data that have it; all groups."""
    where: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    n_sources = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for command, schema in SCHEMAS.items():
            tree = schema.model_json_schema()
            sources = tree["properties"].get("data", {}).get("discriminator", {"mapping": [""]})["mapping"]
            n_sources[command] = len(sources)
            for source in sorted(sources):
                for line in describe_key(tree, tree, read_values(command, *[f"data={source}"] * bool(source)), ""):
                    where[line][command].append(source)
        for name, schema in SWEEPERS.items():
            tree = schema.model_json_schema()
            settings = compose("train", [f"hydra/sweeper={name}"], return_hydra_config=True).hydra.sweeper
            values = {key: value for key, value in OmegaConf.to_container(settings).items() if key != "_target_"}
            for line in describe_key(tree, tree, values, "hydra.sweeper"):
                where[line][f"train hydra/sweeper={name}"] = []
        yield from list_choices()
    for line, commands in where.items():
        places = [
            f"{command} data={','.join(sources)}" if len(sources) < n_sources.get(command, 0) else command
            for command, sources in sorted(commands.items())
        ]
        yield f"{line}  [{'; '.join(places)}]"


def list_choices() -> Iterator[str]:
    """Each group with its choices, and what each choice changes of the defaults."""
    base = flatten(read_values("train"))
    for folder in sorted({path.parent for path in CONF.glob("**/*/*.yaml")}):
        group, choices = str(folder.relative_to(CONF)), sorted(path.stem for path in folder.glob("*.yaml"))
        yield f"{group}=  {', '.join(choices)}"
        for choice in choices if group not in {"data", "phases"} and "/" not in group else []:
            at = "scheduler@phases.finetune.scheduler" if group == "scheduler" else group
            values = flatten(read_values("train", f"{at}={choice}"))
            changed = (key for key in sorted(base.keys() | values.keys()) if base.get(key) != values.get(key))
            yield from (f"{group}={choice}  {key}: {values.get(key, 'no such key')}" for key in changed)


def read_values(command: str, *overrides: str) -> Any:
    return OmegaConf.to_container(compose(command, list(overrides)), resolve=True)


def flatten(values: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(values, dict) or not values:
        return {prefix: re.sub(r"^cxrlit\.[\w.]+\.(\w+)$", r"cxrlit...\1", flat(values))}  # a class, wherever it is
    below = (flatten(value, f"{prefix}.{name}".lstrip(".")) for name, value in values.items())
    return {key: text for inner in below for key, text in inner.items()}


def describe_key(tree: dict[str, Any], node: dict[str, Any], value: Any, key: str) -> Iterator[str]:
    """Type, range and description of a key, and its value; or those of each key below it."""
    if "discriminator" in node and isinstance(value, dict):
        node = {"$ref": node["discriminator"]["mapping"][value[node["discriminator"]["propertyName"]]]}
    inner = tree["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if "properties" in inner and isinstance(value, dict):
        for name, child in inner["properties"].items():
            yield from describe_key(tree, child, value.get(name, "no default"), f"{key}.{name}".lstrip("."))
        return
    meanings = [part["description"] for part in (node, *node.get("anyOf", ())) if "description" in part]
    yield "; ".join([f"{key}: {describe_type(tree, node)}", *meanings[:1]])
    yield from (f"{name} = {text}" for name, text in flatten(value, key).items())


def describe_type(tree: dict[str, Any], node: dict[str, Any]) -> str:
    if "$ref" in node:
        return describe_type(tree, tree["$defs"][node["$ref"].rpartition("/")[2]])
    if "anyOf" in node or "oneOf" in node:
        return " | ".join(describe_type(tree, part) for part in node.get("anyOf", node.get("oneOf")))
    if "enum" in node or "const" in node:
        return " | ".join(map(flat, node.get("enum", [node.get("const")])))
    kind = node.get("type", "any")
    if "items" in node:
        kind = f"list of ({describe_type(tree, node['items'])})"
    elif isinstance(node.get("additionalProperties"), dict):
        kind = f"dict of ({describe_type(tree, node['additionalProperties'])})"
    elif "properties" in node:
        kind = ", ".join(f"{name}: {describe_type(tree, part)}" for name, part in node["properties"].items()).join("{}")
    return " ".join([kind, *(f"{sign} {node[limit]}" for limit, sign in LIMITS.items() if limit in node)])


def list_project() -> Iterator[str]:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    yield from (f"console script {name}" for name in project["scripts"])
    yield f"dependency python{project['requires-python']}"
    yield from (f"dependency {package}" for package in project["dependencies"])
    for extra, packages in project["optional-dependencies"].items():
        yield from (f"extra {extra}: {package}" for package in packages)
    for target, text in re.findall(r"^([\w-]+):(?!=)[^#\n]*(?:## (.*))?$", (REPO / "Makefile").read_text(), re.M):
        yield f"make {target}: {text}"


def write_surface() -> str:
    if Path(cxrlit.__file__).parents[1] != REPO:
        raise SystemExit(f"cxrlit is imported from {cxrlit.__file__}: set PYTHONPATH={REPO}")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        folders, screens = run_all()
        files, shown = list_files(folders), list_shown(folders, screens)
    messages, others = read_messages(REPO)
    sections = {
        "commands": list(list_commands()),
        "settings": sorted(list_settings()),
        "project": sorted(list_project()),
        "files": files,
        "pages and tables": shown,
        "messages": messages,
        "other texts": others,
    }
    return "\n".join(f"== {name} ==\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="show how the file differs, and write nothing")
    check = parser.parse_args().check
    surface = write_surface()
    if not check:
        SURFACE.write_text(surface)
        return
    before = SURFACE.read_text().splitlines(keepends=True)
    difference = list(difflib.unified_diff(before, surface.splitlines(keepends=True), "tests/surface.txt", "now", n=0))
    sys.stdout.writelines(difference)
    raise SystemExit(bool(difference))


if __name__ == "__main__":
    main()
