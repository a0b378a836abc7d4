"""Messages and other texts of the package, read from its sources without the names of modules and functions."""

import ast
import re
from itertools import product
from pathlib import Path

SPEAKERS = re.compile(r"say|print|_?warn\w*")
"""Functions that print a message."""
DESCRIBERS = {"Field", "add_argument", "add_parser", "ArgumentParser"}
"""Functions whose help and description show in the help of a command, or in the schema of the settings."""
MIN_WORDS = 4
"""Number of words from which a text that is no message is listed."""


class MessageReader(ast.NodeVisitor):
    """Collects what exceptions of the package and ValueError say, what is printed, and all other longer texts."""

    def __init__(self, faults: set[str]) -> None:
        self.faults, self.messages, self.others = faults, set[tuple[str, str]](), set[str]()
        self.assigned: dict[str, list[ast.expr]] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.assigned = self.assigned, {**self.assigned}
        for inner in ast.walk(node):
            targets = inner.targets if isinstance(inner, ast.Assign) else [getattr(inner, "target", None)]
            for target in targets if isinstance(inner, ast.Assign | ast.AnnAssign | ast.NamedExpr) else []:
                if isinstance(target, ast.Name) and inner.value:
                    self.assigned[target.id] = [*self.assigned.get(target.id, []), inner.value]
        self.generic_visit(node)
        self.assigned = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node: ast.Call) -> None:
        name = get_name(node.func)
        if name in self.faults or SPEAKERS.fullmatch(name):
            kind = name if name in self.faults else "screen"
            for argument in node.args if name in self.faults else node.args[:1]:
                self.messages |= {(kind, tidy(text)) for text in self.read(argument) if re.search(r"[^\W\d]", text)}
        if name in DESCRIBERS:
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in {"help", "description"}]
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # else a docstring
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        self.others |= {tidy(text) for text in self.read(node)}

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.others |= {tidy(text) for text in self.read(node)}
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def read(self, node: ast.expr, seen: tuple[str, ...] = ()) -> list[str]:
        """Every text that an expression may be; a part that is computed is {}."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [node.value]
        if isinstance(node, ast.JoinedStr):
            return ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)]
        if isinstance(node, ast.IfExp):
            return self.read(node.body, seen) + self.read(node.orelse, seen)
        if isinstance(node, ast.BoolOp):
            return [text for part in node.values for text in self.read(part, seen)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pairs = product(self.read(node.left, seen), self.read(node.right, seen))
            return [re.sub(r"(\{\})+", "{}", left + right) for left, right in pairs]
        if isinstance(node, ast.Name) and node.id in self.assigned and node.id not in seen:
            return [text for part in self.assigned[node.id] for text in self.read(part, (*seen, node.id))]
        if isinstance(node, ast.Call) and node.args and not isinstance(node.func, ast.Attribute):
            return self.read(node.args[0], seen)
        return ["{}"]


def get_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def tidy(text: str) -> str:
    return " ".join(text.split())


def read_messages(repo: Path) -> tuple[list[str], list[str]]:
    """The messages of the package, and its other texts, those of its page templates among them."""
    paths = [repo / "train.py", repo / "evaluate.py", *repo.glob("cxrlit/**/*.py")]
    trees = [ast.parse(path.read_text()) for path in paths]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    faults, n_before = {"ValueError"}, 0
    while len(faults) > n_before:
        n_before = len(faults)
        faults |= {node.name for node in classes for base in map(get_name, node.bases)
                   if base in faults or re.search("(Error|Exception)$", base)}  # fmt: skip
    reader = MessageReader(faults)
    for tree in trees:
        reader.visit(tree)
    for path in (*repo.glob("cxrlit/**/*.html"), *repo.glob("cxrlit/**/*.md")):
        page = re.sub(r"{%.*?%}", " ", re.sub(r"{{.*?}}", "{}", path.read_text(), flags=re.S), flags=re.S)
        reader.others |= {tidy(text) for text in re.split("<[^>]*>", page)}
    others = reader.others - {text for _, text in reader.messages}
    long = [text for text in others if len(re.findall(r"\S*[^\W\d]\S*", text)) >= MIN_WORDS]
    return sorted(f"{kind}: {text}" for kind, text in reader.messages), sorted(long)
