"""A Kubernetes API as far as engines need it: it refuses what no schema knows, what names an old version, and whoever has no token."""

import copy
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes_validate
from aiohttp import web

TOKEN = "the-service-account"
KINDS = {
    "deployments": "Deployment",
    "services": "Service",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "jobs": "Job",
}


@dataclass
class FakeCluster:
    """Objects by (resource, name), as the API keeps them; `calls` lists every write that was taken."""

    url: str = ""
    objects: dict[tuple[str, str], Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    refuse: int = 0
    meddle: int = 0
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def names(self, resource: str = "deployments") -> set[str]:
        """What there is of a resource."""
        return {name for kept, name in self.objects if kept == resource}

    def keep(self, resource: str, body: Any) -> Any:
        """Take an object as it is, as if somebody else had made it."""
        kept = copy.deepcopy(body)
        kept["metadata"]["resourceVersion"] = str(next(self._versions))
        if resource == "deployments":
            kept["spec"].setdefault("replicas", 1)
        if resource == "services":
            kept["spec"].setdefault("clusterIP", f"10.0.0.{next(self._versions)}")
        self.objects[resource, kept["metadata"]["name"]] = kept
        return kept

    def as_seen_by(self, folder: Path) -> dict[str, Any]:
        """A kubectl configuration that reaches it; the token is put into `folder`."""
        (folder / "token").write_text(TOKEN, encoding="utf-8")
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"tokenFile": str(folder / "token")}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "tunegate"}}],
        }

    async def answer(self, request: web.Request) -> web.Response:
        """One call."""
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized")
        if self.refuse:
            return _status(self.refuse, "not allowed by the fake")
        resource, name = request.match_info["resource"], request.match_info.get("name", "")
        if resource not in KINDS:
            return _status(404, f"the server could not find {resource}")
        match request.method:
            case "GET":
                return self._get(resource, name, request.query.get("labelSelector", ""))
            case "POST":
                return self._make(resource, await request.json())
            case "PUT":
                return self._replace(resource, name, await request.json())
            case _:
                return self._delete(resource, name)

    def _get(self, resource: str, name: str, selector: str) -> web.Response:
        if name:
            found = self.objects.get((resource, name))
            answer = web.json_response(found) if found else _status(404, f"{resource} {name} not found")
            if found and self.meddle:  # somebody writes between this reading and the writing that follows
                self.meddle -= 1
                self.keep(resource, found)
            return answer
        return web.json_response(
            {"items": [each for (kept, _), each in self.objects.items() if kept == resource and _fits(each, selector)]}
        )

    def _make(self, resource: str, body: Any) -> web.Response:
        if "name" not in body["metadata"]:
            body["metadata"]["name"] = f"{body['metadata'].pop('generateName')}{next(self._versions):05d}"
        if (resource, body["metadata"]["name"]) in self.objects:
            return _status(409, "AlreadyExists")
        return self._taken("POST", resource, body, 201)

    def _replace(self, resource: str, name: str, body: Any) -> web.Response:
        found = self.objects.get((resource, name))
        if found is None:
            return _status(404, "not found")
        if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified")
        if resource == "services" and body["spec"].get("clusterIP") != found["spec"]["clusterIP"]:
            return _status(422, "spec.clusterIP: field is immutable")
        if resource == "deployments" and body["spec"]["selector"] != found["spec"]["selector"]:
            return _status(422, "spec.selector: field is immutable")
        return self._taken("PUT", resource, body, 200)

    def _delete(self, resource: str, name: str) -> web.Response:
        if self.objects.pop((resource, name), None) is None:
            return _status(404, "not found")
        self.calls.append(f"DELETE {resource} {name}")
        return _status(200, "deleted")

    def _taken(self, method: str, resource: str, body: Any, status: int) -> web.Response:
        if resource == "jobs":
            without_what_prefect_misplaces(body)
        try:
            kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            return _status(422, error.message)
        if body["kind"] != KINDS[resource]:
            return _status(400, f"a {body['kind']} is not one of {resource}")
        self.calls.append(f"{method} {resource} {body['metadata']['name']}")
        return web.json_response(self.keep(resource, body), status=status)


def without_what_prefect_misplaces(job: Any) -> Any:
    """Prefect's worker insists on these two in the pod's spec, where Kubernetes knows none, and drops them with a warning."""
    pod = job["spec"]["template"]["spec"]
    assert (pod.pop("completions"), pod.pop("parallelism")) == (1, 1)
    return job


@asynccontextmanager
async def fake_cluster() -> AsyncIterator[FakeCluster]:
    """The API on loopback while the block runs."""
    cluster, app = FakeCluster(), web.Application()
    for prefix in ("/api/v1", "/apis/{group}/{version}"):
        app.router.add_route("*", f"{prefix}/namespaces/tunegate/{{resource}}", cluster.answer)
        app.router.add_route("*", f"{prefix}/namespaces/tunegate/{{resource}}/{{name}}", cluster.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield cluster
    finally:
        await runner.cleanup()


def _fits(found: Any, selector: str) -> bool:
    labels = found["metadata"].get("labels", {})
    terms = [term.partition("=") for term in selector.split(",") if term]
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in terms)


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)
