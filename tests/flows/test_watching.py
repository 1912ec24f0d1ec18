"""Whether a champion holds its policy: decided from counts, and done to a real registry."""

from pathlib import Path

import pytest

from flows.operations import watch_champion
from flows.watching import Counts, WatchPolicy, judge, read_counts
from serving.metrics import GatewayMetrics
from tests.fakes_flows import SAFE, Site, merged_model

POLICY = WatchPolicy(max_error_ratio=0.02, max_p95_s=2.0, min_requests=50)


def counts(judged: int, failed: int = 0, slow: int = 0) -> Counts:
    return Counts(judged, failed, judged, ((1.0, judged - slow), (2.0, judged - slow), (float("inf"), judged)))


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (counts(49, failed=49), "too few requests"),
        (counts(50), "holds"),
        (counts(50, failed=2), "holds"),  # 4 % of 50: the interval's lower end is 1.3 %, below the 2 % allowed
        (counts(50, failed=5), "breaks"),  # 10 % of 50: 5 %
        (counts(1000, failed=25), "holds"),  # 2.5 % of 1000: 1.8 %
        (counts(1000, failed=30), "breaks"),  # 3 % of 1000: 2.2 %
        (counts(100, slow=8), "holds"),  # 8 % of 100: 4.6 %, below the 5 % that a 95th percentile allows
        (counts(100, slow=15), "breaks"),
    ],
)
def test_a_breach_must_be_more_than_chance(seen: Counts, outcome: str) -> None:
    assert judge(POLICY, seen).outcome == outcome


def test_what_was_counted_before_the_watch_does_not_count() -> None:
    before, now = counts(100, failed=50), counts(160, failed=50)
    assert judge(POLICY, now.since(before)).outcome == "holds"


def test_a_gateway_that_was_started_anew_counts_from_nothing() -> None:
    assert counts(60, failed=30).since(counts(1000)) == counts(60, failed=30)


def test_the_page_of_the_real_metrics_is_read_for_one_release_alone() -> None:
    metrics = GatewayMetrics()
    for release, outcome in [("a-2", "ok")] * 3 + [
        ("a-2", "timeout"),
        ("a-2", "client_error"),
        ("a-2", "aborted"),
        ("a-1", "server_error"),
    ]:
        series = metrics.requests(release, "chat_completions")
        series.started()
        series.finished(outcome, 0.7)  # type: ignore[arg-type]
    read = read_counts(metrics.render().decode(), "a-2")
    assert (read.judged, read.failed, read.timed, read.slower_than(0.6), read.slower_than(0.8)) == (4, 1, 5, 5, 0)


def promoted(site: Site, folder: Path, name: str) -> str:
    """A second champion of a public name, straight in the registry: what is watched is the gateway, not the promotion."""
    line = site.line(folder, name)
    for says in ("Rest.", SAFE):
        merged = merged_model(line, says)
        release = line.registry.add_release(
            public_name=name,
            model_digest=merged.record.digest,
            model_dir=merged.folder,
            serving=line.recipe.serving,
            recipe_name="small",
            requester="ann",
        )
        if site.registry.champion(name) is None:
            site.registry.bootstrap(release.id, "ann")
        else:
            site.registry.submit(release.id, "e" * 64, None, "ann")
            site.registry.approve(release.id, "e" * 64, "bob")
            site.registry.promote(release.id, "e" * 64, "ann")
    return f"{name}-2"


def test_a_quiet_champion_stays_and_the_watch_says_that_it_saw_too_little(site: Site, tmp_path: Path) -> None:
    release = promoted(site, tmp_path, "quiet")
    watched = watch_champion(site.board, "quiet", WatchPolicy(for_s=0.3, every_s=0.1))
    assert (watched.release, watched.end) == (release, "too few requests")
    champion = site.registry.champion("quiet")
    assert champion is not None
    assert champion.id == release


def test_a_champion_that_fails_its_callers_is_sent_back(site: Site, tmp_path: Path) -> None:
    release = promoted(site, tmp_path, "failing")
    pages = iter([counts(10), counts(110, failed=60)])
    watched = watch_champion(site.board, "failing", WatchPolicy(for_s=5, every_s=0.1), lambda url, release_id: next(pages))
    assert (watched.release, watched.end) == (release, "rolled back")
    assert "60 of 100 requests failed" in watched.reason
    champion = site.registry.champion("failing")
    assert champion is not None
    assert (champion.id, site.registry.history(release)[-1].actor) == ("failing-1", "watch")
