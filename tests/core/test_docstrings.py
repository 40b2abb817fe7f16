"""Constructor arguments are the configuration and their docstrings the `--help`: each one is documented, typed, and named by its class."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("moviegen_core", "plugins", "data/moviegen_data") for path in (ROOT / folder).rglob("*.py"))


def constructors(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    yield node, [*item.args.args[1:], *item.args.kwonlyargs]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_constructors_document_and_type_every_argument(path):
    for node, arguments in constructors(path):
        documented = ast.get_docstring(node) or ""
        inherited = [base.id for base in node.bases if isinstance(base, ast.Name)]
        for argument in arguments:
            where = f"{path.name}: {node.name}({argument.arg})"
            assert argument.annotation is not None, f"{where} has no type"
            told = f"{argument.arg}:" in documented
            assert told or (inherited and "Arguments are those of" in documented), f"{where} is not in the docstring's Args"


def test_the_lookout_sees_something():
    assert sum(1 for path in FILES for _ in constructors(path)) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_future_annotations(path):
    assert "from __future__ import annotations" not in path.read_text(), "it breaks jaxtyping's check at run time"
