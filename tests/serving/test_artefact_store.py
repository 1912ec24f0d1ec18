"""Models at an address: whole or not there, every byte compared, whatever is killed, altered or out of reach on the way."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import fsspec
import pytest
from fsspec.registry import _registry
from moto.server import ThreadedMotoServer

from serving.artefact import verify_artefact
from serving.artefact_store import ArtefactStore, bring
from serving.errors import StoreError
from serving.records import Release
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_serving import candidate, url_in
from training.errors import RecordError
from training.records import SIGNATURE_NAME, BaseModelRecord, digest_files

ROOT = Path(__file__).parents[2]
SHARDS = 4


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server that speaks S3, and keys for it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    known = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="models")
        yield "s3://models/tunegate"
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{uuid4().hex}"
    return f"file://{tmp_path}/store" if request.param == "file" else f"memory://store/{uuid4().hex}"


def model(folder: Path) -> BaseModelRecord:
    """A finished model of several shards, one of them in a folder of its own."""
    (folder / "inner").mkdir(parents=True)
    for number in range(SHARDS):
        (folder / f"model-{number}.safetensors").write_bytes(bytes([number]) * 100_000)
    (folder / "inner" / "config.json").write_text("{}", encoding="utf-8")
    record = BaseModelRecord(created_at="now", source="org/tiny", folder=str(folder), files=digest_files(folder))
    record.write(folder)
    return record


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*partial*")]


def test_a_model_that_went_comes_back_byte_for_byte_and_goes_once(address: str, tmp_path: Path) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(address)
    assert store.put(tmp_path / "made") == SHARDS * 100_000 + 2
    assert store.put(tmp_path / "made") == 0
    (tmp_path / "made" / SIGNATURE_NAME).write_text("signed since", encoding="utf-8")
    assert store.put(tmp_path / "made") == 0
    store.fetch(record.digest, tmp_path / "there" / "model")
    assert (tmp_path / "there" / "model" / SIGNATURE_NAME).read_text(encoding="utf-8") == "signed since"
    assert digest_files(tmp_path / "there" / "model") == record.files
    assert BaseModelRecord.read(tmp_path / "there" / "model") == record
    assert leftovers(tmp_path / "there") == []


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [
        ("s3://models/tunegate", "s3fs", "s3"),
        ("gs://models/tunegate", "gcsfs", "gs"),
        ("az://models@account.dfs.core.windows.net/tunegate", "adlfs", "az"),
    ],
)
def test_an_address_whose_extra_is_not_installed_says_which_one(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what an import finds where the package is not there
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(_registry, address.partition("://")[0], raising=False)
    with pytest.raises(StoreError, match=f"begins with {address[:2]}://, and what speaks that is not installed") as refused:
        ArtefactStore(address)
    assert f"pip install 'tunegate[{extra}]'" in (refused.value.do or "")


def test_what_lies_there_is_listed_and_a_model_that_is_dropped_is_gone_with_all_its_files(address: str, tmp_path: Path) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(address)
    assert store.models() == ()
    store.put(tmp_path / "made")
    (found,) = store.models()
    assert (found.digest, found.size_bytes > SHARDS * 100_000) == (record.digest, True)
    store.drop(record.digest)
    assert (store.models(), store.holds(record.digest)) == ((), False)
    store.drop(record.digest)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("model-2.safetensors", b"\x02" * 99_999 + b"\x03", "model-2.safetensors of .* hashes to"),
        ("model-2.safetensors", b"", "model-2.safetensors of .* hashes to"),
        ("record.json", b"{", "cannot be read as a BaseModelRecord"),
    ],
    ids=["a flipped byte", "cut short", "a torn record"],
)
def test_what_was_altered_there_is_refused_and_nothing_of_it_stays(
    address: str, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(address)
    store.put(tmp_path / "made")
    fsspec.open(f"{address}/models/{record.digest}/{name}").fs.pipe_file(f"{address}/models/{record.digest}/{name}", content)
    with pytest.raises(RecordError, match=told):
        store.fetch(record.digest, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert leftovers(tmp_path) == []


def test_a_record_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(f"file://{tmp_path}/store")
    store.put(tmp_path / "made")
    evil = record.model_copy(update={"files": (record.files[0].model_copy(update={"path": "../../evil"}), *record.files[1:])})
    evil.write(tmp_path / "store" / "models" / evil.digest)
    with pytest.raises(RecordError, match=r"names '\.\./\.\./evil'"):
        store.fetch(evil.digest, tmp_path / "there")
    evil.write(tmp_path / "store" / "models" / record.digest)
    with pytest.raises(RecordError, match="is that of the model"):
        store.fetch(record.digest, tmp_path / "there")


def test_a_model_that_changed_after_it_was_recorded_does_not_go(tmp_path: Path) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(f"file://{tmp_path}/store")
    (tmp_path / "made" / "model-0.safetensors").write_bytes(b"other")
    with pytest.raises(RecordError, match="has other bytes than recorded"):
        store.put(tmp_path / "made")
    assert not store.holds(record.digest)


class Refusing:
    """A file system whose first calls of each name fail."""

    def __init__(self, inner: Any, times: int) -> None:
        self._inner, self.left = inner, times

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.left:
                self.left -= 1
                raise ConnectionResetError("gone for a moment")
            return found(*args, **kwargs)

        return call


@pytest.mark.parametrize(("failures", "comes"), [(2, True), (3, False)])
def test_a_moment_out_of_reach_is_waited_for_and_a_longer_one_is_told(tmp_path: Path, failures: int, comes: bool) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(f"file://{tmp_path}/store", pause_s=0.001)
    store.put(tmp_path / "made")
    object.__setattr__(store, "_filesystem", Refusing(store._filesystem, failures))
    if comes:
        store.fetch(record.digest, tmp_path / "there")
        return
    with pytest.raises(StoreError, match="ConnectionResetError: gone for a moment"):
        store.fetch(record.digest, tmp_path / "there")


def test_an_address_that_nobody_knows_and_one_that_is_silent_are_told_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="ValueError"):
        ArtefactStore("nothing://there")
    monkeypatch.setenv("STORE_PASSWORD", "hush-hush")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(StoreError) as caught:
        ArtefactStore(f"ftp://me:${{STORE_PASSWORD}}@127.0.0.1:{port}/x", pause_s=0.001).holds("a" * 64)
    assert "hush-hush" not in str(caught.value)
    assert "${STORE_PASSWORD}" in str(caught.value)


HALTS_HALF_WAY = """
import sys, time
from pathlib import Path
from serving import artefact_store
from serving.artefact_store import ArtefactStore
def slow(source, target):
    target.write(source.read(1000)); target.flush(); print("half", flush=True); time.sleep(600)
artefact_store._copied = slow
getattr(ArtefactStore(sys.argv[1]), sys.argv[2])(*[Path(each) if "/" in each else each for each in sys.argv[3:]])
"""


@pytest.mark.parametrize("way", ["fetch", "put"])
def test_a_kill_in_the_middle_leaves_nothing_that_counts_and_the_next_one_ends_well(tmp_path: Path, way: str) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(f"file://{tmp_path}/store")
    words = [str(tmp_path / "made")] if way == "put" else [record.digest, str(tmp_path / "there")]
    if way == "fetch":
        store.put(tmp_path / "made")
    command = [sys.executable, "-c", HALTS_HALF_WAY, store.address, way, *words]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert running.stdout is not None
    assert running.stdout.readline().startswith(b"half")  # two files travel at once, and both may say so
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    assert not (tmp_path / "there").exists()
    assert store.holds(record.digest) == (way == "fetch")
    if way == "put":
        store.put(tmp_path / "made")
    store.fetch(record.digest, tmp_path / "there")
    assert digest_files(tmp_path / "there") == record.files
    assert leftovers(tmp_path) == []


class Counting:
    """A file system that counts the files it opens."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.opened = inner, 0

    def open(self, *args: Any, **kwargs: Any) -> Any:
        self.opened += 1
        return self._inner.open(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_four_who_want_it_at_once_fetch_it_once(tmp_path: Path) -> None:
    record, store = model(tmp_path / "made"), ArtefactStore(f"file://{tmp_path}/store")
    store.put(tmp_path / "made")
    counting = Counting(store._filesystem)
    object.__setattr__(store, "_filesystem", counting)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.fetch(record.digest, tmp_path / "there"), range(4)))
    assert counting.opened == len(record.files)
    assert digest_files(tmp_path / "there") == record.files


def released(home: Path, folder: Path, record: BaseModelRecord) -> Release:
    home.mkdir(exist_ok=True)
    with Registry(url_in(home)) as registry:
        return candidate(registry, digest=record.digest, folder=folder)


def test_a_machine_without_the_model_gets_it_where_the_registry_says_and_the_weights_are_those_judged(tmp_path: Path) -> None:
    home = tmp_path / "home"
    record = model(home / "runs" / "clinic" / "merge-1")
    release = released(home, home / "runs" / "clinic" / "merge-1", record)
    settings = Settings(home=home, artefact_url=f"file://{tmp_path}/store")
    ArtefactStore(settings.artefact_url).put(release.model_dir)
    release.model_dir.rename(tmp_path / "elsewhere")
    bring(settings, release)
    assert verify_artefact(release) == record.files
    with pytest.raises(StoreError, match="which is not below"):
        bring(settings.model_copy(update={"home": tmp_path / "other"}), release.model_copy(update={"model_dir": tmp_path / "gone"}))
    bring(Settings(home=home), release.model_copy(update={"model_dir": tmp_path / "gone"}))  # without a store, nothing is tried


def test_a_model_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not hold the model aaaaaaaaaaaa"):
        ArtefactStore(f"file://{tmp_path}/store").fetch("a" * 64, tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == [".there.fetching"]
