"""Values that exist: schemathesis (`SCHEMATHESIS_HOOKS=tests.schemathesis_values`) would else meet nothing but 404.

A value that fits is replaced by one that is there; a value that is wrong on purpose stays as it is. Imports nothing of tunegate.
"""

import os
import re
from typing import Any

import schemathesis

MODEL, RELEASE, EVIDENCE = (os.environ[f"PROBED_{name}"] for name in ("MODEL", "RELEASE", "EVIDENCE"))
_answered: list[str] = []


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Name the model, the release, its evidence, and the last answer."""
    _replace(case.path_parameters, "release_id", r"[a-z0-9][a-z0-9._-]{0,79}", RELEASE)
    _replace(case.body, "model", r"(?s).+", MODEL)
    _replace(case.body, "evidence_digest", r"[0-9a-f]{64}", EVIDENCE)
    if _answered:
        _replace(case.body, "request_id", r"(?s).{1,100}", _answered[-1])


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Remember an answer that can be spoken of."""
    if case.operation.path == "/v1/chat/completions" and response.status_code == 200:
        _answered.append(response.headers["x-request-id"][0])


def _replace(given: Any, name: str, fits: str, value: str) -> None:
    if isinstance(given, dict) and isinstance(given.get(name), str) and re.fullmatch(fits, given[name]):
        given[name] = value
