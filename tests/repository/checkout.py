"""The files of this checkout that belong to the project: what git ignores is left out, whether or not git knows the rest yet."""

import fnmatch
import os
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "training", "evaluation", "serving", "monitoring")
# Packages inside packages: data preparation (`deploy/decisions/0008`), text metrics, one small file for each family, and what good
# practice asks of a training run, one small file for each trap.
INNER = frozenset({"training/data", "training/practice", "evaluation/metrics"})
# Where Alembic looks for them; few enough for the list of serving/.
MIGRATIONS = frozenset({"serving/migrations", "serving/migrations/versions"})


@cache
def project_files() -> tuple[Path, ...]:
    """Paths below the repository, in order. Only plain names are understood in .gitignore, and only those are used there."""
    patterns = [line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert not [pattern for pattern in patterns if "/" in pattern or pattern.startswith(("!", "#"))]
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = sorted(name for name in names if name != ".git" and not _ignored(name, patterns))
        found += [Path(folder, name).relative_to(ROOT) for name in sorted(files) if name != ".git" and not _ignored(name, patterns)]
    return tuple(found)


def pages() -> tuple[Path, ...]:
    """Every Markdown page."""
    return tuple(path for path in project_files() if path.suffix == ".md")


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _ignored(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
