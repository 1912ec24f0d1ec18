"""Prefect without a server of the user's: nothing is written beside our home, and nothing is said about it."""

import os
import subprocess
import sys
from pathlib import Path

SETTINGS = """
import sys
from pathlib import Path
from flows.approval import use_own_prefect
from serving.settings import Settings
use_own_prefect(Settings(home=Path(sys.argv[1])))
from prefect.settings import get_current_settings
found = get_current_settings()
print(found.home, found.server.memo_store_path)
"""


def test_without_a_server_of_the_users_prefects_files_lie_in_our_home(tmp_path: Path) -> None:
    users = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {"HOME": str(tmp_path / "empty")}
    ran = subprocess.run(
        [sys.executable, "-c", SETTINGS, str(tmp_path)], env=users, capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout.split() == [str(tmp_path / "prefect"), str(tmp_path / "prefect" / "memo_store.toml")]
