"""The registry: which releases there are, which one is in production, and how it came to be. The only shared state.

Every step is one transaction: it reads, checks against `lifecycle.py`, changes the state only where it is still what was read,
and appends to the history. Of two racing promotions exactly one wins. Knows nothing of processes, HTTP or how evidence is made.
Next: `rollout_book.py`, promotions by steps; `releases.py`, `fleet.py` and `keys.py`, the SQL inside the transactions.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from sqlalchemy import Connection, select

from serving import approvals, audit_log, fleet, keys, releases, rollout_rows, tables
from serving.approval_book import ApprovalBook
from serving.approval_terms import Signer
from serving.approvals import Asked
from serving.audit_log import Entry
from serving.config import ServingSection
from serving.database import Database, Watch
from serving.errors import NoChampion, TransitionRefused
from serving.history import Audit, audit
from serving.keys import KeyInfo, KeyTerms, Scope
from serving.lifecycle import State
from serving.notifier import Notifier
from serving.records import Release, RolloutStatus, ServerInfo, SlotInfo, SlotLease, Snapshot, Transition
from serving.releases import Step
from serving.rollout_book import RolloutBook
from serving.run_book import RunBook
from serving.server_watch import ServerWatch

_PLAIN = Asked()


def utc_now() -> datetime:
    """The clock of everything but tests."""
    return datetime.now(UTC)


class Registry:
    """Opens the registry at `url`; an SQLite file that is not there is made. Safe between threads and processes.

    Raises (here and in every method):
        RegistryError: the database is locked, gone, torn, or of another version.
    """

    def __init__(
        self,
        url: str | SecretStr,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = Database(url.get_secret_value() if isinstance(url, SecretStr) else url)
        self.now = now
        self.rollouts = RolloutBook(self._database, now)
        self.runs = RunBook(self._database, now)
        self.approvals = ApprovalBook(self._database, now)
        self._watch = ServerWatch(self.last_server, now, monotonic, pause)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections."""
        self._database.close()

    # Reading.

    def release(self, release_id: str) -> Release:
        """One release.

        Raises:
            UnknownRelease: there is none of that id.
        """
        with self._database.read() as connection:
            return releases.one(connection, release_id)

    def releases(self, public_name: str | None = None) -> tuple[Release, ...]:
        """Releases in the order they were added, of one public name or of all."""
        with self._database.read() as connection:
            return tuple(each for each in releases.every(connection) if public_name in (None, each.public_name))

    def public_names(self) -> tuple[str, ...]:
        """Every public name that ever had a release, in alphabetical order."""
        column = tables.releases.c.public_name
        with self._database.read() as connection:
            return tuple(connection.scalars(select(column).distinct().order_by(column)))

    def history(self, release_id: str) -> tuple[Transition, ...]:
        """Every step of a release, oldest first.

        Raises:
            UnknownRelease: there is none of that id.
        """
        with self._database.read() as connection:
            return releases.history(connection, releases.one(connection, release_id).id)

    def champion(self, public_name: str) -> Release | None:
        """The release in production."""
        with self._database.read() as connection:
            return releases.champion(connection, public_name)

    def rollback_target(self, public_name: str) -> Release | None:
        """The release that a rollback would put back in production: the one retired last."""
        with self._database.read() as connection:
            return releases.last_retired(connection, public_name)

    def generation(self) -> int:
        """Grows whenever the champion of any public name changes."""
        with self._database.read() as connection:
            return releases.champion_changes(connection)

    def snapshot(self) -> Snapshot:
        """Everything but the keys, as of one moment."""
        with self._database.read() as connection:
            rollouts = rollout_rows.open_rollouts(connection)
            return Snapshot(
                generation=releases.champion_changes(connection),
                releases=releases.every(connection),
                slots=fleet.slot_rows(connection),
                leases=fleet.leases(connection),
                steps=releases.step_counts(connection),
                canaries=rollout_rows.canaries(rollouts),
                shadows=rollout_rows.shadows_now(connection),
                rollouts=rollouts,
                ended=rollout_rows.endings(connection),
            )

    def watch(self) -> Watch:
        """Ask it, cheaply and often, whether anything has changed."""
        return self._database.watch()

    def verify(self, noted: Iterable[str] = ()) -> Audit:
        """Look for changes to the past; `noted` are heads of the history that were written down elsewhere."""
        with self._database.read() as connection:
            return audit(releases.linked_history(connection), releases.states(connection), noted)

    def note(self, entry: Entry) -> None:
        """Add a line to the audit log, of something that is no step of a release."""
        with self._database.write() as connection:
            audit_log.append(connection, entry)

    # The life of a release.

    def add_release(
        self, *, public_name: str, model_digest: str, model_dir: Path, serving: ServingSection, recipe_name: str, requester: str
    ) -> Release:
        """Register a model as a candidate; the same model again, while its release is under way or live, is that release."""
        with self._database.write() as connection:
            known = releases.under_way(connection, public_name, model_digest)
            if known is not None:
                return releases.one(connection, known)
            number = releases.last_number(connection, public_name) + 1
            candidate = Release(
                id=f"{public_name}-{number}",
                public_name=public_name,
                number=number,
                state=State.CANDIDATE,
                model_digest=model_digest,
                model_dir=model_dir.absolute(),
                evidence_digest=None,
                report_path=None,
                judged_against=None,
                recipe_name=recipe_name,
                requester=requester,
                created_at=self.now(),
                serving=serving,
            )
            releases.add(connection, candidate)
            return candidate

    def submit(self, release_id: str, evidence_digest: str, report_path: Path | None, actor: str, asked: Asked = _PLAIN) -> Release:
        """candidate → awaiting_approval, with the evidence that people are asked to sign, the terms, and the champion of that moment."""
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            releases.attach_evidence(connection, release, evidence_digest, report_path)
            step = Step(State.AWAITING_APPROVAL, actor, "submitted for approval", self.now(), evidence_digest)
            waiting = releases.take(connection, release, step)
            approvals.request(connection, waiting, asked, actor, self.now())
            return waiting

    def reject(self, release_id: str, actor: str, reason: str, account: str = "") -> Release:
        """candidate, awaiting_approval or approved → rejected, for good."""
        with self._database.write() as connection:
            step = Step(State.REJECTED, actor, reason, self.now(), account=account)
            return releases.take(connection, releases.one(connection, release_id), step)

    def approve(self, release_id: str, evidence_digest: str, approver: str, comment: str = "", account: str = "") -> Release:
        """Sign the evidence; with the last signature that its terms ask for, awaiting_approval → approved. See `ApprovalBook.sign`."""
        return self.approvals.sign(release_id, evidence_digest, Signer(approver, account), comment)

    def promote(self, release_id: str, evidence_digest: str, actor: str) -> Release:
        """approved → live without a canary, and the champion before it → retired, in one transaction.

        Raises:
            TransitionRefused: not approved, or another release of this name is a canary.
            EvidenceMismatch: the digest is not the one that was approved.
            ApprovalExpired: it was approved too long ago.
            ChampionChanged: another release than the one it was judged against is in production.
        """
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            releases.check_approved(release)
            releases.check_evidence(release, evidence_digest)
            approvals.check_still_holds(connection, release, self.now())
            champion = releases.champion(connection, release.public_name)
            releases.check_judged_against(release, champion)
            self._end_watch(connection, release)
            if champion is not None:
                releases.take(connection, champion, Step(State.RETIRED, actor, f"replaced by {release_id}", self.now()))
            return releases.take(connection, release, Step(State.LIVE, actor, "promoted", self.now(), evidence_digest))

    def _end_watch(self, connection: Connection, release: Release) -> None:
        """A release that is only watched any more makes room; a canary does not."""
        rollout = rollout_rows.open_rollout(connection, release.public_name)
        if rollout is None:
            return
        if rollout.status is not RolloutStatus.WATCHING:
            raise TransitionRefused(
                f"{release.id} has to wait: {rollout.release_id} is a canary of {release.public_name}",
                why="two changes at once could not be told apart",
                do=f"tunegate rollout status {release.public_name}",
            )
        values = {"status": RolloutStatus.DONE, "ended_at": self.now(), "reason": f"replaced by {release.id}"}
        rollout_rows.change(connection, rollout, values)

    def bootstrap(self, release_id: str, actor: str) -> Release:
        """candidate → live without evidence: only for the first champion of a public name.

        Raises:
            TransitionRefused: the public name has a champion, or the release is not a candidate.
        """
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            champion = releases.champion(connection, release.public_name)
            if champion is not None or release.state is not State.CANDIDATE:
                raise TransitionRefused(
                    f"{release_id} ({release.state}) cannot be made the first champion of {release.public_name}",
                    why=f"{champion.id} is in production" if champion else "only a candidate can",
                    do="have it judged and approved: tunegate run RECIPE",
                )
            return releases.take(connection, release, Step(State.LIVE, actor, "first champion", self.now()))

    def rollback(self, public_name: str, actor: str, reason: str) -> Release:
        """Undo the last change of production, in one transaction. Returns the champion.

        A canary → rolled_back, and the champion has all the traffic; without a canary, live → rolled_back, and the champion before
        it, retired → live.

        Raises:
            NoChampion: nothing is in production, or nothing was before it.
        """
        rollout = self.rollouts.current(public_name)
        if rollout is not None:
            return self.rollouts.roll_back(rollout, actor, "ROLLED BACK", reason)
        with self._database.write() as connection:
            champion, before = releases.champion(connection, public_name), releases.last_retired(connection, public_name)
            if champion is None or before is None:
                missing = "nothing is in production" if champion is None else "nothing was in production before it"
                raise NoChampion(f"{public_name!r} cannot be rolled back: {missing}", do="tunegate releases shows what there is")
            releases.take(connection, champion, Step(State.ROLLED_BACK, actor, reason, self.now()))
            return releases.take(connection, before, Step(State.LIVE, actor, f"put back after {champion.id}: {reason}", self.now()))

    # Slots and the server.

    def want_slot(self, release_id: str, until: datetime) -> None:
        """Have the release running until `until`, whatever its state; the longest wish counts. It is as long as the clock here says now."""
        with self._database.write() as connection:
            seconds = (until - self.now()).total_seconds()
            fleet.want(connection, releases.one(connection, release_id).id, seconds, until)

    def forget_leases(self, ended: Iterable[SlotLease]) -> None:
        """Strike out wishes for slots that were seen to end."""
        with self._database.write() as connection:
            fleet.forget(connection, ended)

    def release_slot(self, release_id: str) -> None:
        """Take the wish back; a champion goes on running."""
        with self._database.write() as connection:
            fleet.unwant(connection, release_id)

    def slots(self) -> tuple[SlotInfo, ...]:
        """What the server last said about each engine; means nothing while `server()` is None or not the one that was started."""
        with self._database.read() as connection:
            return fleet.slot_rows(connection)

    def set_slot(self, info: SlotInfo) -> None:
        """Say what an engine is doing; `updated_at` is set to now."""
        with self._database.write() as connection:
            fleet.set_slot(connection, info.model_copy(update={"updated_at": self.now()}))

    def drop_slot(self, release_id: str) -> None:
        """Forget an engine."""
        with self._database.write() as connection:
            fleet.drop_slot(connection, release_id)

    def beat(self, info: ServerInfo, gone: ServerInfo | None = None) -> None:
        """Be the server, or go on being it; `beat_at` is set to now. A new server forgets the engines that the one before had started.

        Raises:
            AlreadyServing: another one has not left, and is not the one that was seen to be `gone`.
        """
        with self._database.write() as connection:
            fleet.beat(connection, info.model_copy(update={"beat_at": self.now()}), gone)

    def leave(self, boot_id: str) -> None:
        """Stop being the server."""
        with self._database.write() as connection:
            fleet.leave(connection, boot_id)

    def server(self) -> ServerInfo | None:
        """The live server; None when it is not seen to beat for 5 s, whatever its clock and ours say."""
        return self._watch.live()

    def last_server(self) -> ServerInfo | None:
        """The last server that has not left, alive or not."""
        with self._database.read() as connection:
            return fleet.last_server(connection)

    def notifier(self, attempts: int) -> Notifier:
        """Who tells outlets what the audit log has to say."""
        return Notifier(self._database, self.now, attempts)

    # Keys.

    def create_key(self, name: str, scopes: Iterable[Scope], terms: KeyTerms | None = None) -> tuple[KeyInfo, SecretStr]:
        """A new key and its secret, which cannot be had again."""
        with self._database.write() as connection:
            return keys.create(connection, name, scopes, self.now(), terms)

    def rotate_key(self, key_id: str, overlap: timedelta) -> tuple[KeyInfo, SecretStr]:
        """A new key with the same name, scopes and limits; the old one opens the gateway for `overlap` longer.

        Raises:
            UnknownKey: there is no such key, or it opens nothing any more.
        """
        with self._database.write() as connection:
            return keys.rotate(connection, key_id, self.now(), self.now() + overlap)

    def keys(self) -> tuple[KeyInfo, ...]:
        """All keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            return keys.every(connection)

    def key_index(self) -> Mapping[str, KeyInfo]:
        """sha256 of the secret -> key, for the keys that are not revoked."""
        with self._database.read() as connection:
            return keys.index(connection)

    def revoke_key(self, key_id: str) -> None:
        """Shut a key out for good.

        Raises:
            UnknownKey: there is no such key.
        """
        with self._database.write() as connection:
            keys.revoke(connection, key_id, self.now())
