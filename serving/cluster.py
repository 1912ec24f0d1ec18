"""Keeps a Deployment with its Service for every release whose engine runs in Kubernetes, as the registry wants them.

What is wanted is what the supervisor wants (`wanted_releases`): champions, canaries, candidates under a lease. The supervisor looks at
such an engine as at any that runs outside (`outside_engine.py`); here it is made, and let go once nobody wants it. A server that stops
leaves engines alone, and the next one finds them. A release that was never wanted here is not touched, nor is anything without our label.
Knows nothing of requests. Next: `cluster_objects.py`, `cluster_api.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from serving.cluster_api import KINDS, ClusterApi, open_cluster
from serving.cluster_objects import MANAGED_BY, RELEASE, Object, objects_of
from serving.cluster_settings import ClusterSettings
from serving.errors import ClusterError, RegistryError, SlotError
from serving.records import Release
from serving.registry import Registry, utc_now
from serving.settings import Settings
from serving.slot_leases import SlotLeases
from serving.supervisor import wanted_releases

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0


class ClusterEngines:
    """The engines of one registry in one cluster."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        cluster: ClusterSettings,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._settings, self._cluster, self._now = registry, settings, cluster, now
        self._leases = SlotLeases(now, monotonic)
        self._said = ""

    async def run(self, every_s: float = _LOOK_EVERY_S) -> None:
        """Until cancelled. A cluster that cannot be asked changes nothing, and is said once."""
        while True:
            try:
                async with open_cluster(self._cluster) as api:
                    while True:
                        await self.reconcile(api)
                        self._said = ""
                        await asyncio.sleep(every_s)
            except (ClusterError, RegistryError) as error:
                self._say(str(error))
            await asyncio.sleep(every_s)

    async def reconcile(self, api: ClusterApi) -> None:
        """Bring the cluster to what the registry wants; all that can be done is done before an error is raised.

        Raises:
            ClusterError: something could not be done.
            RegistryError: the registry cannot be read; nothing was done.
        """
        snapshot = await asyncio.to_thread(self._registry.snapshot)
        everything = wanted_releases(snapshot, self._leases.held(snapshot.leases), self._now())
        wanted = {name: one for name, one in everything.items() if one.serving.engine == "outside"}
        known = {release.id for release in snapshot.releases}
        faults = [fault for release in wanted.values() if (fault := await self._have(api, release)) is not None]
        await self._let_go(api, wanted, known)
        if faults:
            raise ClusterError("\n".join(faults))

    async def _have(self, api: ClusterApi, release: Release) -> str | None:
        try:
            for each in objects_of(release, self._settings, self._cluster):
                if await api.put(each):
                    _log.info("%s %s is as %s needs it", each["kind"], each["metadata"]["name"], release.id)
        except (ClusterError, SlotError) as error:
            return str(error)
        return None

    async def _let_go(self, api: ClusterApi, wanted: Mapping[str, Release], known: set[str]) -> None:
        for kind in KINDS:
            for found in await api.listed(kind, f"{MANAGED_BY}=tunegate,{RELEASE}"):
                release_id = _release_of(found)
                if release_id in known and release_id not in wanted:
                    _log.info("%s %s is let go: nobody wants %s", kind, found["metadata"]["name"], release_id)
                    await api.delete(kind, found["metadata"]["name"])

    def _say(self, what: str) -> None:
        if what != self._said:
            _log.error("engines in the cluster: %s", what)
            self._said = what


def _release_of(found: Object) -> str:
    return str(found["metadata"]["labels"][RELEASE])
