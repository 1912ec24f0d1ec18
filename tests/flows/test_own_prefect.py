"""A command's own Prefect server: flows run on it, nobody else is told through it, its files stay in our home, it ends with the command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.own_prefect import begin, server_of_the_user
from serving.settings import Settings
from tests.fakes_flows import ROOT, until
from tests.fakes_prefect import PrefectServer

SETTINGS = """
import sys
from pathlib import Path
from flows.own_prefect import use_own_prefect
from serving.settings import Settings
use_own_prefect(Settings(home=Path(sys.argv[1])))
from prefect.settings import get_current_settings
found = get_current_settings()
print(found.home, found.server.memo_store_path)
"""
COMMAND = """
import sys, time
from pathlib import Path
from flows.own_prefect import begin, server_of_the_user
from serving.settings import Settings
own = begin(Settings(home=Path(sys.argv[1])))
from prefect import flow
@flow
def on_it(): return server_of_the_user()
with own.in_use():
    print('told', on_it(), flush=True)
    time.sleep(600)
"""


def test_without_a_server_of_the_users_prefects_files_lie_in_our_home(tmp_path: Path) -> None:
    users = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {"HOME": str(tmp_path / "empty")}
    ran = subprocess.run(
        [sys.executable, "-c", SETTINGS, str(tmp_path)], env=users, capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout.split() == [str(tmp_path / "prefect"), str(tmp_path / "prefect" / "memo_store.toml")]


def test_where_the_user_names_a_server_none_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    assert begin(Settings(home=tmp_path)) is None


@pytest.mark.slow
def test_it_ends_at_once_where_a_file_of_prefects_names_a_server_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_HOME", "PREFECT_SERVER_MEMO_STORE_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "prefect"))
    before, theirs = set(psutil.Process().children()), "http://127.0.0.1:4200/api"
    own = begin(Settings(home=tmp_path))
    assert own is not None
    (begun,) = set(psutil.Process().children()) - before
    with temporary_settings({PREFECT_API_URL: theirs}), own.in_use():
        assert (begun.is_running(), server_of_the_user()) == (False, theirs)


@pytest.mark.slow
def test_flows_run_on_it_and_a_killed_command_leaves_nothing_of_it(prefect: PrefectServer, tmp_path: Path) -> None:
    prefect.copy_database(tmp_path / "prefect")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {"PYTHONPATH": str(ROOT)}
    command = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path)], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    try:
        assert command.stdout.readline() == "told None\n"
        family = psutil.Process(command.pid).children(recursive=True)
        assert any("prefect.server.api.server:create_app" in process.cmdline() for process in family)
    finally:
        command.send_signal(signal.SIGKILL)
        command.wait()
    until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family), 20)
