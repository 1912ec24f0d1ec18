"""Asks the gateway as an application would, with a key that lives as long as the question. Next: `showcase.py`."""

import http.client
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from pydantic import SecretStr

from flows.errors import ServingFailed
from flows.serving_control import open_registry
from flows.showcase import ShownAnswer
from serving.keys import Scope
from serving.registry import Registry
from serving.settings import Settings

_KEY_KNOWN_WITHIN_S = 10.0
_TIMEOUT_S = 120.0


def ask_once(settings: Settings, public_name: str, question: str, system: str | None) -> ShownAnswer:
    """One question to the model in production.

    Raises:
        ServingFailed: no server runs, or the gateway refused.
    """
    from openai import OpenAI, OpenAIError  # two seconds of imports that only a question needs

    with open_registry(settings) as registry:
        server = registry.server()
        if server is None:
            raise ServingFailed("no server runs", do="tunegate serve")
        with temporary_key(registry) as key:
            client = OpenAI(base_url=f"http://{server.host}:{server.port}/v1", api_key=key.get_secret_value(), timeout=_TIMEOUT_S)
            turns = [{"role": "system", "content": system}] if system else []
            try:
                raw = client.chat.completions.with_raw_response.create(
                    model=public_name,
                    messages=[*turns, {"role": "user", "content": question}],  # type: ignore[list-item]
                    temperature=0,
                )
            except OpenAIError as error:
                raise ServingFailed(f"the gateway did not answer: {error}", do="tunegate status") from error
            return ShownAnswer(raw.headers.get("x-tunegate-release", "?"), raw.parse().choices[0].message.content or "", ())


@contextmanager
def temporary_key(registry: Registry, *, known_within_s: float = _KEY_KNOWN_WITHIN_S) -> Iterator[SecretStr]:
    """A key for the gateway that ends with the block.

    Raises:
        ServingFailed: the gateway does not let it in after `known_within_s` seconds.
    """
    info, secret = registry.create_key("tunegate command", [Scope.INFER])
    try:
        _wait_until_known(registry, secret, known_within_s)
        yield secret
    finally:
        registry.revoke_key(info.id)


def _wait_until_known(registry: Registry, key: SecretStr, within_s: float) -> None:
    """The gateway learns of a key within its poll interval."""
    server = registry.server()
    deadline = time.monotonic() + within_s
    while server is not None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
        # A server that was killed is still in the registry for some seconds, and does not answer.
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key.get_secret_value()}"})
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(0.05)
    raise ServingFailed("the gateway does not know a key that was just made", do="tunegate status")
