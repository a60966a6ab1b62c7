"""The version of the code behind a kind of stage: a hash of what its packages' sources do.

A commit would miss what is not committed yet, and a version number what is. Comments, docstrings
and layout are left out, as they do nothing.
"""

import ast
import functools
import importlib.util
from pathlib import Path

from megatron_msm.formats.files import sha256_of_json, sha256_of_text
from slurm.kinds import KINDS, StageKind

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# What only some Python versions have in their trees, or what says nothing of the behaviour.
_LEFT_OUT = frozenset({"type_params", "type_comment", "type_ignores", "kind"})


def code_versions(kind: StageKind) -> dict[str, str]:
    """Return the hash of the sources of each package that a stage of this kind runs."""
    return {package: _package_version(package) for package in KINDS[kind].packages}


@functools.cache
def _package_version(package: str) -> str:
    found = importlib.util.find_spec(package)  # by name: the packages do not know each other
    assert found is not None, package
    assert found.origin is not None, package
    folder = Path(found.origin).parent
    sources = sorted(p for p in folder.rglob("*") if p.suffix in {".py", ".j2", ".txt"})
    return sha256_of_json([[str(p.relative_to(folder)), source_version(p)] for p in sources])


def source_version(path: Path) -> str:
    """Return the hash of a source file; of Python, of its syntax tree without docstrings."""
    text = path.read_text()
    return sha256_of_text(_shown(ast.parse(text)) if path.suffix == ".py" else text)


def _shown(node: ast.AST) -> str:
    """Write out a syntax tree; `ast.dump` differs between Python versions."""
    parts = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if name in _LEFT_OUT or value is None or value == []:
            continue
        if name == "body" and isinstance(node, _WITH_DOCSTRING) and _has_docstring(node):
            value = value[1:]
        items = value if isinstance(value, list) else [value]
        shown = [_shown(item) if isinstance(item, ast.AST) else repr(item) for item in items]
        parts.append(f"{name}=[{','.join(shown)}]")
    return f"({' '.join(parts)})"


def _has_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> bool:
    first = node.body[0] if node.body else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
