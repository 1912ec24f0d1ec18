"""Makes what runs agree with what the registry wants: every champion, and every release under a lease, as far as there is room.

One coroutine per slot tells that slot's story: verify, start, wait until ready, wait until it ends, wait a little, again.
The champion's slot is not stopped while it is the champion, unless a recipe lets a candidate take its place; when it is replaced it
stays warm for a while, so that going back is instant. When the registry cannot be read, everything stays as it is. It stops nothing that
it did not start. Knows nothing of HTTP. Next: `places.py`, who runs where not all can; `routing.py`, which sends traffic to what is ready.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import datetime, timedelta

from evaluation.client import Endpoint
from serving.artefact import fingerprint
from serving.engines import Command, Engine, engine_for, verify_before_start
from serving.errors import RegistryError, SlotError, StoreError
from serving.lifecycle import State
from serving.memory import Memory, memory_of_this_machine
from serving.places import Places, Tenancy, places
from serving.records import Release, SlotInfo, SlotState, Snapshot
from serving.registry import Registry, utc_now
from serving.settings import Settings
from serving.slot_folder import read_key
from serving.slot_leases import SlotLeases
from serving.slot_sockets import sweep_sockets
from serving.start_check import check_start
from training.errors import TunegateError

_log = logging.getLogger(__name__)

# By then every gateway has seen a change: a look every `poll_s`, and one slow read.
_HANDOVER_S = 0.5
_SERVING = (State.LIVE, State.CANARY)


def wanted_releases(snapshot: Snapshot, held: Set[str], now: datetime) -> dict[str, Release]:
    """The releases whose slots should run: champions, canaries, whom a rollout may go back to, shadows, and those `held` by a lease."""
    leased = held | {rollout.champion_id for rollout in snapshot.rollouts}
    leased |= {shadow.release_id for shadow in snapshot.shadows.values() if shadow.until > now}
    return {release.id: release for release in snapshot.releases if release.state in _SERVING or release.id in leased}


def backoff_s(crashes: int, first_s: float, cap_s: float) -> float:
    """Seconds before the restart after the n-th crash in a row: first, 2·first, 4·first, … at most cap."""
    return min(cap_s, first_s * 2.0 ** min(crashes - 1, 30))


class Supervisor:
    """Runs engines for one registry. Call it from one event loop, and only in the server that beats for that registry.

    `seen` is called after each look at the registry that got an answer.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        command: Command,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        memory: Memory | None = None,
        seen: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry, self._settings, self._command, self._now, self._seen = registry, settings, command, now, seen
        self._memory = memory or memory_of_this_machine()
        self._leases = SlotLeases(now, monotonic)
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._tended: dict[str, Release] = {}
        self._making_room: set[str] = set()
        self._waiting: dict[str, SlotState] = {}
        self._serving: frozenset[str] = frozenset()
        self._rows: dict[str, SlotInfo | None] = {}
        self._unsaid: set[str] = set()
        self._inherited: set[str] = set()
        self._speaking = asyncio.Lock()
        self._blind = self._closing = False
        self._handover_s = _HANDOVER_S + 5 * settings.poll_s

    async def run(self) -> None:
        """Reconcile until cancelled; then stop every slot."""
        sweep_sockets(self._settings.home / "slots")
        try:
            while True:
                await self._reconcile_or_stay()
                await asyncio.sleep(self._settings.reconcile_s)
        finally:
            await self.stop()

    async def reconcile(self) -> None:
        """Start what is wanted and does not run; stop what runs and is not wanted.

        Raises:
            RegistryError: the registry cannot be read; nothing was started or stopped.
        """
        await self._flush()
        snapshot = await self._keep_warm(await asyncio.to_thread(self._registry.snapshot))
        wanted = wanted_releases(snapshot, self._leases.held(snapshot.leases), self._now())
        if over := self._leases.over():
            await asyncio.to_thread(self._registry.forget_leases, over)
        self._forget_ended()
        self._inherit(snapshot, wanted)
        kept = {rollout.champion_id for rollout in snapshot.rollouts}
        given = await self._places(list(wanted.values()), kept)
        for release_id, task in self._tending.items():
            if release_id not in given and not task.cancelling():
                if release_id in given.waiting:
                    self._making_room.add(release_id)
                task.cancel()
        # What is still being stopped keeps its place until it is gone.
        leaving = [self._tended[release_id] for release_id in self._tending if release_id not in given]
        now = await self._places(given.run, kept, leaving) if leaving else given
        await self._say_who_waits(given.waiting, now.waiting)
        for release in now.run:
            if release.id not in self._tending:
                self._tended[release.id] = release
                self._tending[release.id] = asyncio.create_task(self._tend(release), name=f"slot {release.id}")

    async def _places(self, wanted: Sequence[Release], kept: Collection[str], leaving: Sequence[Release] = ()) -> Places:
        if not self._waiting and not leaving and all(release.id in self._tending for release in wanted):
            return Places(list(wanted))  # nothing is new: looking at every process each second would be for nothing
        pids = [row.pid for row in self._rows.values() if row is not None and row.pid is not None]
        return await asyncio.to_thread(places, wanted, self._memory, Tenancy(pids, kept, leaving))

    async def _say_who_waits(self, without_place: Mapping[str, str], soon: Mapping[str, str]) -> None:
        """Speak for engines that do not run; one that is still being stopped speaks for itself."""
        said = {name: (SlotState.STARTING, reason) for name, reason in soon.items()}
        said |= {name: (SlotState.WAITING, reason) for name, reason in without_place.items()}
        waiting = {name: said[name][0] for name in said if name not in self._tending}
        for release_id in self._waiting.keys() - waiting.keys() - self._tending.keys():
            self._rows[release_id] = None
            self._unsaid.add(release_id)
        for release_id, state in waiting.items():
            # The amounts change from look to look; only the first is news.
            if self._waiting.get(release_id) is not state:
                _log.warning("slot %s: %s", release_id, said[release_id][1])
                await self._say(release_id, state, _Crashes(self._settings.restart_cap_s), said[release_id][1])
        self._waiting = waiting
        await self._flush_or_wait()

    def _inherit(self, snapshot: Snapshot, wanted: Mapping[str, Release]) -> None:
        """Engines of others that were ready under the server before: callers go on to them until there is something to say."""
        self._inherited |= {slot.release_id for slot in snapshot.slots if _is_elsewhere(slot) and slot.release_id not in self._rows}
        for release_id in self._inherited - wanted.keys():
            self._inherited.discard(release_id)
            self._rows[release_id] = None
            self._unsaid.add(release_id)

    async def stop(self) -> None:
        """Drain and stop every slot; what others run stays known to the gateways that go on."""
        self._closing = True
        tasks = list(self._tending.values())
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tending.clear()

    async def _reconcile_or_stay(self) -> None:
        try:
            await self.reconcile()
            self._blind = False
            self._seen()
        except RegistryError as error:
            if not self._blind:
                _log.error("everything stays as it is: %s", error)
            self._blind = True

    async def _keep_warm(self, snapshot: Snapshot) -> Snapshot:
        """Lease the slots of champions and canaries that lost their traffic since the last look."""
        serving = frozenset(release.id for release in snapshot.releases if release.state in _SERVING)
        replaced = [release for release in snapshot.releases if release.id in self._serving - serving]
        for release in replaced:
            # One that was rolled back gets no more traffic than what the gateway sends before its table has followed.
            stays_s = self._settings.warm_s if release.state is State.RETIRED else self._handover_s
            await asyncio.to_thread(self._registry.want_slot, release.id, self._now() + timedelta(seconds=stays_s))
        self._serving = serving
        return await asyncio.to_thread(self._registry.snapshot) if replaced else snapshot

    def _forget_ended(self) -> None:
        for release_id, task in list(self._tending.items()):
            if task.done():
                del self._tending[release_id]
                del self._tended[release_id]
                self._making_room.discard(release_id)
                if not task.cancelled() and (error := task.exception()) is not None:
                    _log.error("slot %s: unexpected end, starting again", release_id, exc_info=error)

    async def _tend(self, release: Release) -> None:
        history = _Crashes(self._settings.restart_cap_s)
        try:
            while True:
                await self._verified(release, history)
                history.ended(await self._one_life(release, history))
                _log.error("slot %s: %s", release.id, history.reason)
                await self._say(release.id, SlotState.FAILED, history, history.reason)
                await asyncio.sleep(backoff_s(history.in_a_row, self._settings.restart_first_s, self._settings.restart_cap_s))
        finally:
            if not self._goes_on_elsewhere(release):
                self._rows[release.id] = None
                self._unsaid.add(release.id)
            await self._flush_or_wait()

    def _goes_on_elsewhere(self, release: Release) -> bool:
        row = self._rows.get(release.id)
        return self._closing and (release.id in self._inherited or (row is not None and _is_elsewhere(row)))

    async def _verified(self, release: Release, history: "_Crashes") -> None:
        """Return when the artefact is what was judged; until then the slot is failed, and the files are looked at for a change."""
        while True:
            await self._say(release.id, SlotState.STARTING, history, "verifying the files" + history.epilogue)
            before = await asyncio.to_thread(fingerprint, release.model_dir)
            try:
                await asyncio.to_thread(verify_before_start, release, self._settings)
                return
            except StoreError as error:  # it heals elsewhere, where nobody can be watched for it
                _log.error("slot %s has no model yet: %s", release.id, error)
                await self._say(release.id, SlotState.FAILED, history, str(error))
                await asyncio.sleep(self._settings.restart_cap_s)
                continue
            except (TunegateError, OSError) as error:
                _log.error("slot %s will not be served: %s", release.id, error)
                await self._say(release.id, SlotState.FAILED, history, str(error))
            while await asyncio.to_thread(fingerprint, release.model_dir) == before:
                await asyncio.sleep(self._settings.reconcile_s)

    async def _one_life(self, release: Release, history: "_Crashes") -> str:
        """From start to end of one engine; returns why it ended."""
        slot = engine_for(release, self._settings, self._command)
        drain_s = 0.0
        try:
            await slot.start()
            await self._say(release.id, SlotState.STARTING, history, "waiting for the first answer" + history.epilogue, slot)
            await slot.ready()
            said = await self._compared(release, slot)
            drain_s = self._settings.drain_s
            history.ready()
            await self._say(release.id, SlotState.READY, history, said, slot)
            _log.info("slot %s is ready at %s", release.id, slot.base_url)
            return await slot.ended()
        except SlotError as error:
            return str(error)
        except asyncio.CancelledError:
            if release.id in self._making_room:
                await self._say(release.id, SlotState.STOPPING, history, "makes room for another engine", slot)
                await asyncio.sleep(self._handover_s)  # until every gateway has seen it, and sends nothing more
            elif not self._goes_on_elsewhere(release):
                await self._say(release.id, SlotState.STOPPING, history, "no longer wanted", slot)
            raise
        finally:
            await slot.stop(drain_s)

    async def _compared(self, release: Release, slot: Engine) -> str:
        """Hold the engine against what was judged; what there is to say about it."""
        key = read_key(self._settings.slot_folder(release.id))
        if key is None:
            raise SlotError(f"the key of {release.id} is gone", do="let nobody else write to the slots' folders")
        endpoint = Endpoint(base_url=slot.base_url, api_key=key, model=slot.served_name)
        return await asyncio.to_thread(check_start, self._settings.live_folder, release.id, release.model_digest, endpoint)

    async def _say(self, release_id: str, state: SlotState, history: "_Crashes", reason: str, slot: Engine | None = None) -> None:
        if state is SlotState.STARTING and release_id in self._inherited:
            return
        self._inherited.discard(release_id)
        self._rows[release_id] = SlotInfo(
            release_id=release_id,
            state=state,
            base_url=slot.base_url if slot else None,
            served_name=slot.served_name if slot else release_id,
            pid=slot.pid if slot else None,
            restarts=history.total,
            reason=reason,
            updated_at=self._now(),
        )
        self._unsaid.add(release_id)
        await self._flush_or_wait()

    async def _flush_or_wait(self) -> None:
        try:
            await self._flush()
        except RegistryError as error:
            _log.error("slot states will be written later: %s", error)

    async def _flush(self) -> None:
        """Write the newest state of every slot whose state the registry has not heard."""
        async with self._speaking:
            for release_id in list(self._unsaid):
                row = self._rows[release_id]
                if row is None:
                    await asyncio.to_thread(self._registry.drop_slot, release_id)
                else:
                    await asyncio.to_thread(self._registry.set_slot, row)
                if self._rows[release_id] is row:
                    self._unsaid.discard(release_id)


def _is_elsewhere(slot: SlotInfo) -> bool:
    return slot.state is SlotState.READY and slot.pid is None


class _Crashes:
    """How often a slot's engine ended by itself, and why it did the last time. One that was ready for a while starts a new row."""

    def __init__(self, forgiven_after_s: float) -> None:
        self._forgiven_after_s = forgiven_after_s
        self._ready_at_s: float | None = None
        self.total, self.in_a_row, self.reason = 0, 0, ""

    @property
    def epilogue(self) -> str:
        return f"; before that, {self.reason}" if self.reason else ""

    def ready(self) -> None:
        self._ready_at_s = time.monotonic()

    def ended(self, reason: str) -> None:
        steady = self._ready_at_s is not None and time.monotonic() - self._ready_at_s > self._forgiven_after_s
        self.total, self.in_a_row, self.reason = self.total + 1, 1 if steady else self.in_a_row + 1, reason
        self._ready_at_s = None
