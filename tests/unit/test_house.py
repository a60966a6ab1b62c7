"""Rules of the house that no linter has: read from the source of all packages."""

import ast
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("megatron_msm", "data_prep", "slurm", "evals")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring: of definitions, and of fields, beneath them."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield statement.lineno, text


def begins_with_of(source: str) -> list[int]:
    return [
        line for line, text in docstrings(ast.parse(source)) if text.split()[:1] in (["Of"], ["of"])
    ]


def test_a_docstring_that_sends_the_reader_to_its_neighbour_is_found() -> None:
    assert begins_with_of('class A:\n    x: int\n    """Of it."""\n') == [3]
    assert begins_with_of('"""Offsets of rows."""\n') == []


def test_no_docstring_begins_with_of() -> None:
    assert len(SOURCES) > 150
    found = [f"{relative(path)}:{n}" for path in SOURCES for n in begins_with_of(path.read_text())]
    assert not found, "say what it is, so that nobody has to read the line above: " + str(found)


# What a module can do to find out which megatron-core this is.
_QUESTIONS = ("version", "signature", "hasattr", "find_spec")


def asks_for_megatron(source: str) -> list[int]:
    """Return the lines that ask for megatron-core's version or for what only some versions have."""
    tree = ast.parse(source)
    theirs = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("megatron.core"))
        or (isinstance(node, ast.Import) and node.names[0].name.startswith("megatron.core"))
        for alias in node.names
    }

    def is_theirs(node: ast.AST) -> bool:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        return bool(names & theirs) or "megatron-core" in texts

    def is_question(node: ast.expr | ast.stmt) -> bool:
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            return called in _QUESTIONS and any(is_theirs(argument) for argument in node.args)
        if isinstance(node, ast.Attribute):
            return node.attr in ("__version__", "__dataclass_fields__") and is_theirs(node.value)
        return isinstance(node, ast.Try) and any(
            isinstance(part, ast.ImportFrom) and (part.module or "").startswith("megatron.core")
            for part in node.body
        )

    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.expr | ast.stmt) and is_question(node)
    ]


@pytest.mark.parametrize(
    "question",
    [
        "import inspect\nfrom megatron.core import dist_checkpointing\n"
        "inspect.signature(dist_checkpointing.save)",
        "from importlib.metadata import version\n\nversion('megatron-core')",
        "from megatron.core.a import B\n\nB.__dataclass_fields__",
        "from megatron.core import a\n\nhasattr(a, 'b')",
        "import os\ntry:\n    from megatron.core import a\nexcept ImportError:\n    a = None",
    ],
)
def test_a_question_for_the_version_is_found(question: str) -> None:
    assert asks_for_megatron(question)


def test_only_runtime_asks_which_megatron_core_this_is() -> None:
    outside = [path for path in SOURCES if not relative(path).startswith("megatron_msm/runtime/")]
    found = [f"{relative(p)}:{n}" for p in outside for n in asks_for_megatron(p.read_text())]
    assert not found, "ask in megatron_msm/runtime/megatron_versions.py: " + str(found)


def imports_in_functions(source: str) -> int:
    return sum(
        isinstance(node, ast.Import | ast.ImportFrom)
        for function in ast.parse(source).body
        for node in ast.walk(function)
        if isinstance(function, ast.FunctionDef | ast.ClassDef)
    )


def test_few_imports_hide_in_functions() -> None:
    assert imports_in_functions("def f():\n    import a\nclass B:\n    import c\n") == 2
    found = {relative(path): imports_in_functions(path.read_text()) for path in SOURCES}
    assert sum(found.values()) <= 50, {name: number for name, number in found.items() if number}


TESTED_ELSEWHERE = {
    "data_prep/generate/steps": "tests/unit/data_prep/generate/test_pipelines.py",
}
"""Rooms that only show in another's work."""


def test_every_room_has_its_tests() -> None:
    rooms = {relative(path.parent) for path in SOURCES} - set(PACKAGES)
    assert len(rooms) > 40
    missing = [
        room
        for room in sorted(rooms)
        if not any((ROOT / "tests/unit" / room.removeprefix("megatron_msm/")).rglob("test_*.py"))
        and not (ROOT / TESTED_ELSEWHERE.get(room, "none")).exists()
    ]
    assert not missing, "write tests in the folder of that name below tests/unit: " + str(missing)


def says_any(code: ast.AST) -> int:
    """Count `Any` in code, imports and quoted annotations included."""
    nodes = list(ast.walk(code))
    names = [getattr(node, field, None) for node in nodes for field in ("id", "attr", "name")]
    annotations = [
        getattr(node, field, None) for node in nodes for field in ("annotation", "returns")
    ]
    quoted = [
        text.value
        for annotation in annotations
        if annotation is not None
        for text in ast.walk(annotation)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    ]
    return names.count("Any") + sum(map(says_any, _parsed(quoted)))


def _parsed(texts: list[str]) -> Iterator[ast.AST]:
    for text in texts:
        with contextlib.suppress(SyntaxError):  # a pattern or a help text, of an `Annotated`
            yield ast.parse(text, mode="eval")


def test_any_is_rare_in_every_package() -> None:
    source = 'from typing import Any\nx: Any = "Any"  # Any\ny: "list[Any]"\n"""Any."""\n'
    assert says_any(ast.parse(source)) == 3
    found, lines = Counter[str](), Counter[str]()
    for path in SOURCES:
        text = path.read_text()
        package = relative(path).split("/")[0]
        found[package] += says_any(ast.parse(text))
        lines[package] += len(text.splitlines())
    assert lines.keys() == set(PACKAGES)
    often = {name: found[name] for name in PACKAGES if found[name] >= 6 * lines[name] / 1000}
    assert not often, f"six in a thousand lines: narrow what comes in where it enters: {often}"
