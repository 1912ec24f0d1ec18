"""Releases and their steps, as SQL on one connection inside somebody else's transaction.

Knows nothing of files, locks or slots. Next: `registry.py`, which makes transactions of these.
"""

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Text, func, insert, select, type_coerce, update

from serving.audit_log import STEP, Entry, append
from serving.errors import ChampionChanged, EvidenceMismatch, TransitionRefused, UnknownRelease
from serving.history import START, Line, Linked, sha256_of
from serving.lifecycle import FINISHED, State, check
from serving.records import Release, Transition
from serving.tables import generation, releases, transitions


@dataclass(frozen=True)
class Step:
    """Who takes a release to which state, why, and on what evidence."""

    to: State
    actor: str
    reason: str
    at: datetime
    evidence_digest: str | None = None
    account: str = ""


def one(connection: Connection, release_id: str) -> Release:
    """The release of that id.

    Raises:
        UnknownRelease: there is none; the nearest id is named.
    """
    row = connection.execute(select(releases).where(releases.c.id == release_id)).mappings().first()
    if row is not None:
        return Release.model_validate(dict(row))
    known = connection.scalars(select(releases.c.id)).all()
    near = difflib.get_close_matches(release_id, known, n=1)
    raise UnknownRelease(
        f"there is no release {release_id!r}" + (f"; did you mean {near[0]}?" if near else ""),
        do="list them: tunegate releases" if known else "make the first one: tunegate run RECIPE",
    )


def every(connection: Connection) -> tuple[Release, ...]:
    """All releases, in the order they were added."""
    rows = connection.execute(select(releases).order_by(releases.c.created_at, releases.c.public_name, releases.c.number)).mappings()
    return tuple(Release.model_validate(dict(row)) for row in rows)


def champion(connection: Connection, public_name: str) -> Release | None:
    """The release in production."""
    query = select(releases).where(releases.c.public_name == public_name, releases.c.state == State.LIVE)
    row = connection.execute(query).mappings().first()
    return None if row is None else Release.model_validate(dict(row))


def last_retired(connection: Connection, public_name: str) -> Release | None:
    """Of the retired releases, the one that was in production last."""
    query = (
        select(releases)
        .join(transitions, transitions.c.release_id == releases.c.id)
        .where(releases.c.public_name == public_name, releases.c.state == State.RETIRED, transitions.c.to_state == State.RETIRED)
        .order_by(transitions.c.seq.desc())
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else Release.model_validate(dict(row))


def under_way(connection: Connection, public_name: str, model_digest: str) -> str | None:
    """Id of the newest release of these weights that is neither retired, rejected nor rolled back."""
    same = select(releases.c.id).where(
        releases.c.public_name == public_name, releases.c.model_digest == model_digest, releases.c.state.not_in(FINISHED)
    )
    return connection.scalars(same.order_by(releases.c.number.desc())).first()


def last_number(connection: Connection, public_name: str) -> int:
    """The number of the newest release of a public name; 0 before the first."""
    return connection.scalar(select(func.max(releases.c.number)).where(releases.c.public_name == public_name)) or 0


def add(connection: Connection, release: Release) -> None:
    """Insert a candidate and the first line of its history."""
    row = release.model_dump(exclude={"serving", "model_dir"})
    serving = release.serving.model_dump(mode="json")
    connection.execute(insert(releases).values(**row, serving=serving, model_dir=str(release.model_dir)))
    step = Step(State.CANDIDATE, release.requester, f"added by recipe {release.recipe_name}", release.created_at)
    _remember(connection, release.id, None, step)


def attach_evidence(connection: Connection, release: Release, evidence_digest: str, report_path: Path | None) -> None:
    """Bind the evidence, and the champion it was measured against, to a candidate."""
    against = champion(connection, release.public_name)
    facts = {
        "evidence_digest": evidence_digest,
        "report_path": None if report_path is None else str(report_path.absolute()),
        "judged_against": None if against is None else against.id,
    }
    connection.execute(update(releases).where(releases.c.id == release.id, releases.c.state == State.CANDIDATE).values(facts))


def take(connection: Connection, release: Release, step: Step) -> Release:
    """Take one step: check it, swap the state only where it is still the one that was read, append to the history.

    Raises:
        TransitionRefused: there is no such step, nobody takes it, or somebody else was faster.
    """
    check(release.id, release.state, step.to)
    if not step.actor.strip():
        raise TransitionRefused(f"{release.id} cannot become {step.to} in nobody's name", do="say who you are: --as NAME")
    still = update(releases).where(releases.c.id == release.id, releases.c.state == release.state)
    if connection.execute(still.values(state=step.to)).rowcount != 1:
        raise TransitionRefused(f"{release.id} was {release.state} a moment ago and is not any more", do="look at it again, then decide")
    if step.to is State.LIVE:
        connection.execute(update(generation).values(value=generation.c.value + 1))
    _remember(connection, release.id, release.state, step)
    return one(connection, release.id)


def history(connection: Connection, release_id: str) -> tuple[Transition, ...]:
    """Every step of a release, oldest first."""
    rows = connection.execute(select(transitions).where(transitions.c.release_id == release_id).order_by(transitions.c.seq))
    return tuple(Transition.model_validate(dict(row)) for row in rows.mappings())


def step_counts(connection: Connection) -> dict[tuple[str, State], int]:
    """(public name, new state) -> how many steps led there."""
    counts = (
        select(releases.c.public_name, transitions.c.to_state, func.count())
        .join_from(transitions, releases)
        .group_by(releases.c.public_name, transitions.c.to_state)
    )
    return {(name, state): count for name, state, count in connection.execute(counts)}


def champion_changes(connection: Connection) -> int:
    """The generation: grows whenever the champion of any public name changes."""
    value: int = connection.scalars(select(generation.c.value)).one()
    return value


def check_approved(release: Release) -> None:
    """Let an approved release pass.

    Raises:
        TransitionRefused: it is in another state.
    """
    if release.state is State.APPROVED:
        return
    waiting = release.state is State.AWAITING_APPROVAL
    raise TransitionRefused(
        f"{release.id} is {release.state}, not approved",
        why="only an approved release is promoted",
        do=f"tunegate {'approve' if waiting else 'show'} {release.id}" + (" --as NAME" if waiting else ""),
    )


def check_evidence(release: Release, evidence_digest: str) -> None:
    """Let a matching digest pass.

    Raises:
        EvidenceMismatch: the release carries other evidence.
    """
    if release.evidence_digest == evidence_digest:
        return
    raise EvidenceMismatch(
        f"{release.id} was submitted with evidence {(release.evidence_digest or 'none')[:12]}, not {evidence_digest[:12]}",
        why="an approval holds for one model and one scorecard, not for their successors",
        do=f"read the report again: tunegate show {release.id}",
    )


def check_judged_against(release: Release, now: Release | None) -> None:
    """Let a release pass that was judged against the champion of this moment.

    Raises:
        ChampionChanged: another one is in production by now.
    """
    found = None if now is None else now.id
    if release.judged_against == found:
        return
    raise ChampionChanged(
        f"{release.id} was judged against {release.judged_against or 'no champion'}, but {found or 'no champion'} is in production",
        why="nobody knows whether it is better than what callers get now",
        do=f"tunegate reject {release.id}, then run its recipe again: only the evaluation is repeated",
    )


def linked_history(connection: Connection) -> tuple[Linked, ...]:
    """Every step of every release as it is kept, for `history.audit`. Read as text: a state that does not exist is a finding."""
    columns = [transitions.c[name] for name in (*_SPELLED, "previous_sha256", "sha256")]
    plain = [type_coerce(each, Text).label(each.name) if each.name.endswith("_state") else each for each in columns]
    rows = connection.execute(select(*plain).order_by(transitions.c.seq))
    return tuple(_linked(dict(row)) for row in rows.mappings())


def states(connection: Connection) -> dict[str, str]:
    """Release id -> the state it is said to be in."""
    return {row[0]: row[1] for row in connection.execute(select(releases.c.id, type_coerce(releases.c.state, Text)))}


_SPELLED = ("seq", "release_id", "from_state", "to_state", "actor", "reason", "evidence_digest", "at")


def _linked(row: dict[str, Any]) -> Linked:
    sha256, at = row.pop("sha256"), row.pop("at")
    return Linked(Line(**row, at=_as_kept(at)), sha256)


def _as_kept(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def _remember(connection: Connection, release_id: str, before: State | None, step: Step) -> None:
    """Append to the chain. Writers come one after the other, so the last step is still the last when this one is written."""
    last = connection.execute(select(transitions.c.seq, transitions.c.sha256).order_by(transitions.c.seq.desc()).limit(1)).first()
    number, previous = (last.seq + 1, last.sha256) if last is not None else (1, START)
    state = None if before is None else before.value
    line = Line(number, release_id, state, step.to.value, step.actor, step.reason, step.evidence_digest, _as_kept(step.at), previous)
    connection.execute(
        insert(transitions).values(
            seq=number,
            release_id=release_id,
            from_state=before,
            to_state=step.to,
            actor=step.actor,
            reason=step.reason,
            evidence_digest=step.evidence_digest,
            at=step.at,
            previous_sha256=previous,
            sha256=sha256_of(line),
        )
    )
    facts = {"step": number, "step_sha256": sha256_of(line), "from": state, "public_name": one(connection, release_id).public_name}
    append(connection, Entry(f"{STEP}{step.to}", release_id, step.actor, step.at, step.reason, step.account, step.evidence_digest, facts))
