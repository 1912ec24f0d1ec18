"""The registry: which releases there are, which one is in production, and how it came to be. The only shared state.

Every step is one transaction: it reads, checks against `lifecycle.py`, changes the state only where it is still what was read,
and appends to the history. Of two racing promotions exactly one wins. Knows nothing of processes, HTTP or how evidence is made.
Next: `releases.py`, `fleet.py` and `keys.py`, the SQL inside the transactions; then `supervisor.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from sqlalchemy import select

from serving import fleet, keys, releases, tables
from serving.config import ServingSection
from serving.errors import NoChampion, TransitionRefused
from serving.keys import KeyInfo, KeyTerms, Scope
from serving.lifecycle import State
from serving.records import Release, ServerInfo, SlotInfo, Snapshot, Transition
from serving.releases import Step
from serving.tables import Database, Watch


def utc_now() -> datetime:
    """The clock of everything but tests."""
    return datetime.now(UTC)


class Registry:
    """Opens, or makes, the registry at `url` (`sqlite:///<path>`). Safe between threads and processes.

    Raises (here and in every method):
        RegistryError: the file is locked, gone, torn, or of a newer version.
    """

    def __init__(self, url: str | SecretStr, *, now: Callable[[], datetime] = utc_now) -> None:
        self._database = Database(url.get_secret_value() if isinstance(url, SecretStr) else url)
        self._now = now

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
            return Snapshot(
                generation=releases.champion_changes(connection),
                releases=releases.every(connection),
                slots=fleet.slot_rows(connection),
                leases=fleet.leases(connection),
                steps=releases.step_counts(connection),
            )

    def watch(self) -> Watch:
        """Ask it, cheaply and often, whether anything has changed."""
        return self._database.watch()

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
                created_at=self._now(),
                serving=serving,
            )
            releases.add(connection, candidate)
            return candidate

    def submit(self, release_id: str, evidence_digest: str, report_path: Path | None, actor: str) -> Release:
        """candidate → awaiting_approval, with the evidence a person is asked to sign and the champion it was judged against."""
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            releases.attach_evidence(connection, release, evidence_digest, report_path)
            step = Step(State.AWAITING_APPROVAL, actor, "submitted for approval", self._now(), evidence_digest)
            return releases.take(connection, release, step)

    def reject(self, release_id: str, actor: str, reason: str) -> Release:
        """candidate, awaiting_approval or approved → rejected, for good."""
        with self._database.write() as connection:
            return releases.take(connection, releases.one(connection, release_id), Step(State.REJECTED, actor, reason, self._now()))

    def approve(self, release_id: str, evidence_digest: str, approver: str, comment: str = "") -> Release:
        """awaiting_approval → approved.

        Raises:
            EvidenceMismatch: the digest is not the one that was submitted.
        """
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            if release.state is State.AWAITING_APPROVAL:
                releases.check_evidence(release, evidence_digest)
            return releases.take(connection, release, Step(State.APPROVED, approver, comment, self._now(), evidence_digest))

    def promote(self, release_id: str, evidence_digest: str, actor: str) -> Release:
        """approved → live, and the champion before it → retired, in one transaction.

        Raises:
            EvidenceMismatch: the digest is not the one that was approved.
            ChampionChanged: another release than the one it was judged against is in production.
        """
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            if release.state is not State.APPROVED:
                raise _not_approved(release)
            releases.check_evidence(release, evidence_digest)
            champion = releases.champion(connection, release.public_name)
            releases.check_judged_against(release, champion)
            if champion is not None:
                releases.take(connection, champion, Step(State.RETIRED, actor, f"replaced by {release_id}", self._now()))
            return releases.take(connection, release, Step(State.LIVE, actor, "promoted", self._now(), evidence_digest))

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
            return releases.take(connection, release, Step(State.LIVE, actor, "first champion", self._now()))

    def rollback(self, public_name: str, actor: str, reason: str) -> Release:
        """live → rolled_back, and the champion before it, retired → live, in one transaction. Returns the new champion.

        Raises:
            NoChampion: nothing is in production, or nothing was before it.
        """
        with self._database.write() as connection:
            champion, before = releases.champion(connection, public_name), releases.last_retired(connection, public_name)
            if champion is None or before is None:
                missing = "nothing is in production" if champion is None else "nothing was in production before it"
                raise NoChampion(f"{public_name!r} cannot be rolled back: {missing}", do="tunegate releases shows what there is")
            releases.take(connection, champion, Step(State.ROLLED_BACK, actor, reason, self._now()))
            return releases.take(connection, before, Step(State.LIVE, actor, f"put back after {champion.id}: {reason}", self._now()))

    # Slots and the server.

    def want_slot(self, release_id: str, until: datetime) -> None:
        """Have the release running until `until`, whatever its state; the longest wish counts."""
        with self._database.write() as connection:
            fleet.want(connection, releases.one(connection, release_id).id, until)

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
            fleet.set_slot(connection, info.model_copy(update={"updated_at": self._now()}))

    def drop_slot(self, release_id: str) -> None:
        """Forget an engine."""
        with self._database.write() as connection:
            fleet.drop_slot(connection, release_id)

    def beat(self, info: ServerInfo) -> None:
        """Be the server, or go on being it; `beat_at` is set to now. A new server forgets the slots of the one before.

        Raises:
            AlreadyServing: another one is alive.
        """
        with self._database.write() as connection:
            fleet.beat(connection, info.model_copy(update={"beat_at": self._now()}))

    def leave(self, boot_id: str) -> None:
        """Stop being the server."""
        with self._database.write() as connection:
            fleet.leave(connection, boot_id)

    def server(self) -> ServerInfo | None:
        """The live server; None when its last heartbeat is older than 5 s."""
        with self._database.read() as connection:
            return fleet.live_server(connection, self._now())

    # Keys.

    def create_key(self, name: str, scopes: Iterable[Scope], terms: KeyTerms | None = None) -> tuple[KeyInfo, SecretStr]:
        """A new key and its secret, which cannot be had again."""
        with self._database.write() as connection:
            return keys.create(connection, name, scopes, self._now(), terms)

    def rotate_key(self, key_id: str, overlap: timedelta) -> tuple[KeyInfo, SecretStr]:
        """A new key with the same name, scopes and limits; the old one opens the gateway for `overlap` longer.

        Raises:
            UnknownKey: there is no such key, or it opens nothing any more.
        """
        with self._database.write() as connection:
            return keys.rotate(connection, key_id, self._now(), self._now() + overlap)

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
            keys.revoke(connection, key_id, self._now())


def _not_approved(release: Release) -> TransitionRefused:
    waiting = release.state is State.AWAITING_APPROVAL
    return TransitionRefused(
        f"{release.id} is {release.state}, not approved",
        why="only an approved release is promoted",
        do=f"tunegate {'approve' if waiting else 'show'} {release.id}" + (" --as NAME" if waiting else ""),
    )
