"""Rows out of an S3 store on loopback: a file, a folder, a glob; gone, forbidden, unreachable; and no key in what is shown."""

import gzip
import json
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from training.data.sources import SourceSection, open_source
from training.errors import DataError

ROWS = 300
BODY = "".join(f"{json.dumps({'instruction': f'Question {number}', 'output': 'Rest. ' * 20})}\n" for number in range(ROWS)).encode()
FILES = {"clinic/a.jsonl": BODY, "clinic/deep/b.jsonl.gz": gzip.compress(BODY), "clinic/_kept.jsonl": BODY, "clinic/notes.docx": b"PK"}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of a server with one bucket, `rows`."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key="hunter22")
    client.create_bucket(Bucket="rows")
    for key, body in FILES.items():
        client.put_object(Bucket="rows", Key=key, Body=body)
    yield address
    server.stop()


@pytest.fixture(autouse=True)
def _credentials(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("s3://rows/clinic/a.jsonl", ["s3://rows/clinic/a.jsonl"]),
        ("s3://rows/clinic/", ["s3://rows/clinic/a.jsonl", "s3://rows/clinic/deep/b.jsonl.gz"]),
        ("s3://rows/clinic/**/*.gz", ["s3://rows/clinic/deep/b.jsonl.gz"]),
    ],
)
def test_a_file_a_folder_and_a_glob_are_read_whole(path: str, files: list[str]) -> None:
    source = open_source(SourceSection(path=path))

    assert len(list(source)) == ROWS * len(files)
    assert [file.path for file in source.files] == files


def test_what_is_left_out_of_a_folder_is_told() -> None:
    source = open_source(SourceSection(path="s3://rows/clinic"))

    assert [file.path for file in source.skipped] == ["s3://rows/clinic/_kept.jsonl", "s3://rows/clinic/notes.docx"]


@pytest.mark.parametrize("path", ["s3://rows/clinic/gone.jsonl", "s3://nowhere/a.jsonl", "s3://rows/clinic/*.csv"])
def test_what_is_not_there_is_named(path: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(SourceSection(path=path))

    assert path in str(caught.value)


def test_a_store_that_cannot_be_reached_is_one_error_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(DataError, match=r"cannot be read|cannot be reached") as caught:
        open_source(SourceSection(path="s3://rows/clinic/other.jsonl"))

    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter22" not in str(caught.value)
