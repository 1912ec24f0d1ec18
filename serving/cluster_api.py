"""The few calls of Kubernetes' API that engines need: list by label, put as it should be, delete. Knows nothing of releases.

A write names the resource version that was read, so that nobody's change is overwritten unseen; after a conflict it is read again.
Next: `cluster.py`.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from serving.cluster_objects import SPEC, Object
from serving.cluster_settings import ClusterSettings
from serving.errors import ClusterError

KINDS: Mapping[str, str] = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Service": "api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}
_TIMEOUT_S = 20.0
_ATTEMPTS = 4


class ClusterApi:
    """One namespace of one cluster. Every method may raise ClusterError."""

    def __init__(self, session: aiohttp.ClientSession, settings: ClusterSettings) -> None:
        self._session, self._settings = session, settings

    async def listed(self, kind: str, selector: str) -> list[Object]:
        """Every object of a kind whose labels fit."""
        _, body = await self._call("GET", self._url(kind), params={"labelSelector": selector})
        found: list[Object] = body.get("items", [])
        return found

    async def put(self, wanted: Object) -> bool:
        """Make it, or bring it up to date; whether anything had to be written."""
        kind, name = str(wanted["kind"]), str(wanted["metadata"]["name"])
        for _ in range(_ATTEMPTS):
            status, found = await self._call("GET", self._url(kind, name), fine=(200, 404))
            if status == 200 and _digest(found) == _digest(wanted):
                return False
            if status == 404:
                status, _ = await self._call("POST", self._url(kind), json=wanted, fine=(201, 409))
            else:
                status, _ = await self._call("PUT", self._url(kind, name), json=_over(found, wanted), fine=(200, 404, 409))
            if status in (200, 201):
                return True
        raise ClusterError(f"{kind} {name} is changed by somebody else all the time", do="see who else writes to it")

    async def delete(self, kind: str, name: str) -> None:
        """Let it go; its pods finish what they are answering."""
        await self._call("DELETE", self._url(kind, name), json={"propagationPolicy": "Background"}, fine=(200, 202, 404))

    def _url(self, kind: str, name: str = "") -> str:
        path = KINDS[kind].format(self._settings.namespace)
        return f"{self._settings.url.rstrip('/')}/{path}{'/' if name else ''}{name}"

    async def _call(self, method: str, url: str, *, fine: tuple[int, ...] = (200,), **more: Any) -> tuple[int, Any]:
        try:
            token = self._settings.token_file.read_text(encoding="utf-8").strip()
            headers = {"Authorization": f"Bearer {token}"}
            async with self._session.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
                body = await answer.json() if answer.content_type == "application/json" else {}
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterError(
                f"the cluster at {self._settings.url} cannot be asked: {type(error).__name__}",
                why="engines there go on as they are",
                do="see whether TUNEGATE_CLUSTER_URL is right, and whether the service account's token can be read",
            ) from error
        if status not in fine:
            said = str(body.get("message", ""))[:300] if isinstance(body, dict) else ""
            raise ClusterError(
                f"the cluster refuses {method} {url.rpartition('/namespaces/')[2]}: {status} {said}",
                why="an engine there is not as it should be",
                do="give the service account the role `engines` of deploy/kubernetes/base, or mend what the message names",
            )
        return status, body


@asynccontextmanager
async def open_cluster(settings: ClusterSettings) -> AsyncIterator[ClusterApi]:
    """The API while the block runs.

    Raises:
        ClusterError: the certificate authority cannot be read.
    """
    tls: ssl.SSLContext | bool = True
    if settings.url.startswith("https:") and settings.ca_file.exists():
        try:
            tls = ssl.create_default_context(cafile=str(settings.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise ClusterError(f"{settings.ca_file} cannot be used: {error}", do="correct TUNEGATE_CLUSTER_CA_FILE") from error
    connector, timeout = aiohttp.TCPConnector(ssl=tls), aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        yield ClusterApi(session, settings)


def _digest(found: Object) -> object:
    return (found["metadata"].get("annotations") or {}).get(SPEC)


def _over(found: Object, wanted: Object) -> Object:
    """What is wanted, at the version that was read; how many pods there are is the autoscaler's to say."""
    metadata = wanted["metadata"] | {"resourceVersion": found["metadata"]["resourceVersion"]}
    spec = dict(wanted["spec"])
    if wanted["kind"] == "Deployment" and "replicas" in found["spec"]:
        spec["replicas"] = found["spec"]["replicas"]
    if wanted["kind"] == "Service":  # given once, and never to be changed
        spec |= {key: found["spec"][key] for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy") if key in found["spec"]}
    return wanted | {"metadata": metadata, "spec": spec}
