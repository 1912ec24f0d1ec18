"""What lies where, and what does not belong here."""

import tomllib

from tests.repository.checkout import INNER, MIGRATIONS, PACKAGES, ROOT, project_files

TOP_LEVEL = {*PACKAGES, "deploy", "tests", ".ci", ".gitignore", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base"}
MAX_FILE_BYTES = 1 << 20


def test_the_top_level_holds_only_what_is_named_here() -> None:
    assert {path.parts[0] for path in project_files()} == TOP_LEVEL


def test_no_module_has_a_name_that_says_nothing() -> None:
    modules = [path for path in project_files() if path.suffix == ".py"]
    assert len(modules) > 100
    assert [path for path in modules if path.stem in NAMES_THAT_SAY_NOTHING] == []


def test_no_file_is_large() -> None:
    assert [path for path in project_files() if (ROOT / path).stat().st_size > MAX_FILE_BYTES] == []


def test_pyproject_lists_every_package_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    with_init = {path.parent.as_posix() for path in project_files() if path.name == "__init__.py"}
    assert (
        {package.replace(".", "/") for package in project["tool"]["setuptools"]["packages"]}
        == with_init
        == {*PACKAGES, *INNER, *MIGRATIONS}
    )


def test_packages_are_flat() -> None:
    """But for the packages inside packages that `checkout.py` names."""
    data_script = ("flows", "recipes", "clinic_en", "poison.py")
    modules = [path for path in project_files() if path.suffix == ".py" and path.parts[0] in PACKAGES]
    assert [path for path in modules if len(path.parts) != 2 and path.parent.as_posix() not in INNER | MIGRATIONS] == [
        path for path in modules if path.parts == data_script
    ]


def test_every_decision_is_listed_and_has_its_four_parts() -> None:
    records = [path for path in project_files() if path.parent.as_posix() == "deploy/decisions"]
    index = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    assert len(records) >= 7
    for path in records:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f"decisions/{path.name}" in index
        assert [
            part for part in ("Date: ", "**Context.**", "**Decision.**", "**Evidence.**", "**Consequences.**") if part not in text
        ] == []
