"""Engines as Deployments: made, changed and let go as the registry wants, against an API that enforces schemas and versions."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from serving.cluster import ClusterEngines
from serving.cluster_api import open_cluster
from serving.cluster_objects import RELEASE, name_of, objects_of
from serving.cluster_settings import ClusterSettings, load_cluster_settings
from serving.errors import ClusterError, SettingsError, SlotError
from serving.records import Release
from serving.registry import Registry
from serving.rollout_section import RolloutSection
from serving.settings import Settings
from tests.fakes_cluster import TOKEN, FakeCluster, fake_cluster
from tests.fakes_serving import EVIDENCE, Clock, approved, candidate, url_in

FOUR = {"deployments", "services", "poddisruptionbudgets", "horizontalpodautoscalers"}
AT_ONCE = RolloutSection()


class Place:
    """A registry whose recipes run their engines outside, and settings for a cluster that is not started yet."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.registry = Registry(url_in(folder), now=self.clock)
        self.settings = Settings(home=folder / "home")
        (folder / "token").write_text(TOKEN + "\n", encoding="utf-8")
        self.cluster = ClusterSettings(token_file=folder / "token", ca_file=folder / "no-ca", claim="home-tunegate-0")

    def champion(self) -> Release:
        return self.registry.bootstrap(candidate(self.registry, engine="outside", rollout=AT_ONCE).id, "ann")

    def approved(self) -> Release:
        return approved(self.registry, digest="b" * 64, engine="outside", rollout=AT_ONCE)

    def play(self, story: Callable[[FakeCluster, Callable[[], Awaitable[None]]], Awaitable[None]]) -> FakeCluster:
        """A story over a cluster; what it is given second brings the cluster to what the registry wants."""

        async def run() -> FakeCluster:
            async with fake_cluster() as fake:
                self.cluster = self.cluster.model_copy(update={"url": fake.url})
                engines = ClusterEngines(self.registry, self.settings, self.cluster, now=self.clock, monotonic=self.clock.seconds)
                async with open_cluster(self.cluster) as api:
                    await story(fake, lambda: engines.reconcile(api))
            return fake

        return asyncio.run(run())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.registry.close()


def test_a_promotion_makes_one_deployment_and_lets_the_other_go_when_it_is_no_longer_warm(place: Place) -> None:
    old, new = place.champion(), place.approved()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        await reconcile()
        assert {resource for resource, _ in fake.objects} == FOUR
        assert fake.names() == {f"engine-{old.id}"}
        place.registry.want_slot(new.id, place.clock() + timedelta(seconds=60))
        await reconcile()
        assert fake.names() == {f"engine-{old.id}", f"engine-{new.id}"}
        place.registry.promote(new.id, EVIDENCE, "bob")
        place.registry.want_slot(old.id, place.clock() + timedelta(seconds=300))  # the supervisor keeps it warm
        await reconcile()
        assert fake.names() == {f"engine-{old.id}", f"engine-{new.id}"}
        place.clock.forward(301)
        await reconcile()
        assert {name for _, name in fake.objects} == {f"engine-{new.id}"}

    place.play(story)


def test_what_is_as_it_should_be_is_not_written_again_and_a_changed_setting_is(place: Place) -> None:
    place.champion()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        await reconcile()
        assert len(fake.calls) == 4
        fake.objects["deployments", "engine-clinic-1"]["spec"]["replicas"] = 3  # the autoscaler's
        await reconcile()
        assert len(fake.calls) == 4
        changed = ClusterEngines(place.registry, place.settings, place.cluster.model_copy(update={"image": "tunegate:newer"}))
        async with open_cluster(place.cluster) as api:
            await changed.reconcile(api)
        assert fake.calls[4:] == ["PUT deployments engine-clinic-1"]
        deployment = fake.objects["deployments", "engine-clinic-1"]
        assert deployment["spec"]["replicas"] == 3
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "tunegate:newer"

    place.play(story)


def test_somebody_elses_change_in_between_is_read_again_and_not_overwritten_unseen(place: Place) -> None:
    place.champion()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        await reconcile()
        newer = ClusterEngines(place.registry, place.settings, place.cluster.model_copy(update={"memory": "64Gi"}))
        async with open_cluster(place.cluster) as api:
            fake.meddle = 2
            await newer.reconcile(api)
            assert fake.calls[4:] == ["PUT deployments engine-clinic-1"]
            fake.meddle = 100
            with pytest.raises(ClusterError, match="is changed by somebody else all the time"):
                await ClusterEngines(place.registry, place.settings, place.cluster).reconcile(api)

    place.play(story)


def test_what_is_not_ours_is_not_touched(place: Place) -> None:
    """An object without our label, and one of another registry's release."""
    release = place.champion()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        await reconcile()
        (deployment,) = [each for each in objects_of(release, place.settings, place.cluster) if each["kind"] == "Deployment"]
        for name, labels in (("web", {}), ("engine-other-7", {**deployment["metadata"]["labels"], RELEASE: "other-7"})):
            fake.keep("deployments", deployment | {"metadata": {"name": name, "labels": labels}})
        place.registry.promote(place.approved().id, EVIDENCE, "bob")
        await reconcile()
        assert fake.names() == {"web", "engine-other-7", "engine-clinic-2"}

    place.play(story)


@pytest.mark.parametrize(("code", "told"), [(403, "refuses GET tunegate/deployments.*403 not allowed by the fake"), (500, "500")])
def test_a_cluster_that_refuses_is_told_and_nothing_is_lost(place: Place, code: int, told: str) -> None:
    place.champion()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        await reconcile()
        fake.refuse = code
        with pytest.raises(ClusterError, match=told):
            await reconcile()
        fake.refuse = 0
        await reconcile()
        assert fake.names() == {"engine-clinic-1"}

    place.play(story)


def test_a_cluster_that_is_gone_or_a_token_that_is_missing_is_one_clear_error(place: Place) -> None:
    place.champion()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        for broken in ({"url": "http://127.0.0.1:1"}, {"token_file": Path("/nowhere")}):
            cluster = place.cluster.model_copy(update=broken)
            async with open_cluster(cluster) as api:
                with pytest.raises(ClusterError, match="cannot be asked"):
                    await ClusterEngines(place.registry, place.settings, cluster).reconcile(api)

    place.play(story)


def test_one_release_that_cannot_be_run_there_keeps_no_other_from_it(place: Place) -> None:
    bad = candidate(place.registry, name="my.model", engine="outside", rollout=AT_ONCE)
    place.registry.bootstrap(bad.id, "ann")
    place.champion()

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(ClusterError, match=r"'engine-my\.model-1' cannot be the name of a Service"):
            await reconcile()
        assert fake.names() == {"engine-clinic-1"}

    place.play(story)


def test_engines_that_are_started_here_are_none_of_the_clusters_business(place: Place) -> None:
    place.registry.bootstrap(candidate(place.registry).id, "ann")

    async def story(fake: FakeCluster, reconcile: Callable[[], Awaitable[None]]) -> None:
        await reconcile()

    assert place.play(story).objects == {}


def test_an_engine_is_told_what_the_recipe_says_and_asks_for_its_gpus(place: Place) -> None:
    release = candidate(place.registry, engine="outside", tensor_parallel=2, pipeline_parallel=2, max_model_len=2048)
    deployment, *_ = objects_of(release, place.settings, place.cluster)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = dict(zip(container["args"], container["args"][1:], strict=False))
    wanted = {
        "--served-model-name": release.id,
        "--tensor-parallel-size": "2",
        "--max-model-len": "2048",
        "--model": str(release.model_dir),
    }
    assert wanted.items() <= told.items()
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"


def test_without_a_claim_a_pod_fetches_its_model_by_digest_and_without_a_store_nothing_is_made(place: Place) -> None:
    release = candidate(place.registry, engine="outside")
    cluster = place.cluster.model_copy(update={"claim": ""})
    with pytest.raises(SlotError, match="neither TUNEGATE_CLUSTER_CLAIM nor TUNEGATE_ARTEFACT_URL"):
        objects_of(release, place.settings, cluster)
    deployment, *_ = objects_of(release, place.settings.model_copy(update={"artefact_url": "s3://b/x"}), cluster)
    (fetch,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert fetch["command"][2:] == ["serving.artefact_store", release.model_digest, str(release.model_dir)]


@pytest.mark.parametrize(
    ("release_id", "fits"), [("clinic-2", True), ("9lives-1", True), ("a.b-1", False), ("a_b-1", False), ("a" * 60, False)]
)
def test_a_name_that_cannot_be_an_address_is_refused(release_id: str, fits: bool) -> None:
    if fits:
        assert name_of(release_id) == f"engine-{release_id}"
        return
    with pytest.raises(SlotError, match="cannot be the name of a Service"):
        name_of(release_id)


def test_settings_of_a_cluster_that_cannot_be_used_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"URL": "kubernetes", "NAMESPACE": "Über", "MEMORY": "lots"}.items():
        monkeypatch.setenv(f"TUNEGATE_CLUSTER_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_cluster_settings()
    assert all(f"TUNEGATE_CLUSTER_{name}=" in caught.value.what for name in ("URL", "NAMESPACE", "MEMORY"))
