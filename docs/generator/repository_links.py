"""An mkdocs hook: links from a page to files of the repository lead to copies of them in the site.

So the same link works where the repository is read and in the site, and one that leads nowhere
fails the build. No copy is made of what no page links to.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
COPIES = "repository"
_LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a copy of every file of the repository that a page links to."""
    for file in list(files.documentation_pages()):
        for target in _LINK.findall(file.content_string):
            path = _outside(Path(file.src_uri), target[0])
            if path is not None and files.get_file_from_path(_copy(path)) is None:
                content = (ROOT / path).read_text(encoding="utf-8")
                files.append(File.generated(config, _copy(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead such links to the copies."""
    depth = len(Path(page.file.src_uri).parts) - 1

    def changed(match: re.Match[str]) -> str:
        path = _outside(Path(page.file.src_uri), match.group(1))
        return match.group(0) if path is None else f"]({'../' * depth}{_copy(path)})"

    return _LINK.sub(changed, markdown)


def _outside(page: Path, target: str) -> Path | None:
    """Return the file of the repository outside of docs/ that a link means; None for others."""
    found = (ROOT / "docs" / page.parent / target).resolve()
    if found.is_dir():
        found /= "README.md"
    is_outside = found.is_relative_to(ROOT) and not found.is_relative_to(ROOT / "docs")
    return found.relative_to(ROOT) if is_outside and found.is_file() else None


def _copy(path: Path) -> str:
    """Return where its copy lies; as text, which a browser shows."""
    return f"{COPIES}/{path}.txt"
