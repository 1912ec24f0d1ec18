"""Every TUNEGATE_ variable that exists is documented, and every one that is named anywhere exists."""

import re

from flows.reference import setting_keys
from tests.repository.checkout import ROOT, project_files

VARIABLES = {key.name for key in setting_keys()}
READ = {".py", ".md", ".yaml", ".yml", ""}


def test_every_variable_is_in_the_table_of_serving() -> None:
    table = re.findall(r"^\| `(TUNEGATE_\w+)` \|", (ROOT / "serving" / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(table) == len(set(table)) >= 20
    assert set(table) == VARIABLES


def test_every_variable_that_is_named_anywhere_exists() -> None:
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in project_files() if path.suffix in READ}
    named = {(name, path.as_posix()) for path, text in texts.items() for name in re.findall(r"TUNEGATE_[A-Z][A-Z_]*[A-Z]", text)}
    assert len(named) >= 15
    assert {(name, path) for name, path in named if name not in VARIABLES | {"TUNEGATE_NOTIFY", "TUNEGATE_CLUSTER"}} == set()
