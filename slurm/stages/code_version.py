"""The version of the code behind a kind of stage: hashes of its packages' sources and data files.

A commit would miss what is not committed yet, and a version number what is. Of sources, comments,
docstrings and layout are left out, as they do nothing. A prompt or an item file decides a result
as a source does; each is named by itself, so that `why` can say which one was edited.
"""

import ast
import functools
import importlib.util
from pathlib import Path

from megatron_msm.formats.files import sha256_of_file, sha256_of_json, sha256_of_text
from slurm.kinds import KINDS, StageKind

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# What only some Python versions have in their trees, or what says nothing of the behaviour.
_LEFT_OUT = frozenset({"type_params", "type_comment", "type_ignores", "kind"})
_NO_DATA = frozenset({".py", ".pyc"})


def code_versions(kind: StageKind) -> dict[str, str]:
    """Return the hash of each package's sources and of each data file that the kind's stages read.

    Packages are named as Python imports them, files by their path (`evals/tasks/.../frame.yaml`).
    """
    sources = {package: _package_version(package) for package in KINDS[kind].packages}
    files = {
        name: version
        for package in KINDS[kind].data
        for name, version in _data_versions(package).items()
    }
    return {**sources, **files}


@functools.cache
def _package_version(package: str) -> str:
    folder = _folder(package)
    sources = sorted(folder.rglob("*.py"))
    return sha256_of_json([[str(p.relative_to(folder)), source_version(p)] for p in sources])


@functools.cache
def _data_versions(package: str) -> dict[str, str]:
    folder = _folder(package)
    top = folder.parents[package.count(".")]
    return {
        path.relative_to(top).as_posix(): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in _NO_DATA and not path.name.startswith(".")
    }


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)  # by name: the packages do not know each other
    assert found is not None, package
    assert found.origin is not None, package
    return Path(found.origin).parent


def source_version(path: Path) -> str:
    """Return the hash of a source file's syntax tree without docstrings."""
    return sha256_of_text(_shown(ast.parse(path.read_text())))


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
