"""Alerts about what serves: champions, engines, the gateway itself, the registry. Next: `alerting.py`, what an alert is."""

from monitoring import queries, queries_engine
from monitoring.alerting import Alert, Case

REGISTRY_UNSEEN_S = 30

_CHAMPION = 'tunegate_release_info{release="clinic-1",public_name="clinic",state="live",model_digest="d"}'
_UP = 'up{job="tunegate",instance="g"}'
_LIVE = 'tunegate_release_info{state="live"}'
_SCRAPED = 'up{job="tunegate-engine",release="clinic-1",instance="127.0.0.1:2"}'
_STATES = 'tunegate_slot_state{state="ready"}'
_OF_CHAMPION = {"release": "clinic-1", "public_name": "clinic"}
_WORKERS_SEEN = 'tunegate_gateway_registry_seen_timestamp_seconds{instance="g"}'


def _slot(release: str, state: str) -> str:
    return f'tunegate_slot_state{{release="{release}",state="{state}"}}'


def _seen(part: str) -> str:
    return f'tunegate_registry_seen_timestamp_seconds{{instance="g",part="{part}"}}'


CHAMPION_DOWN = Alert(
    name="TunegateChampionDown",
    expr=queries.CHAMPION_SLOT_DOWN.expr,
    hold="1m",
    severity="page",
    summary="{{ $labels.release }} is in production for {{ $labels.public_name }} and its engine is not ready",
    runbook="tunegate status tells why; the supervisor restarts it by itself; tunegate rollback NAME if it does not come up",
    signals=(_LIVE, _STATES),
    cases=(
        Case("the engine restarts", {_CHAMPION: "1x10", _slot("clinic-1", "ready"): "0x10"}, "5m", (_OF_CHAMPION,)),
        Case("no engine at all", {_CHAMPION: "1x10"}, "5m", (_OF_CHAMPION,)),
        Case("ready", {_CHAMPION: "1x10", _slot("clinic-1", "ready"): "1x10"}, "5m"),
    ),
)

NO_CHAMPION = Alert(
    name="TunegateNoChampion",
    expr=queries.NO_CHAMPION.expr,
    hold="5m",
    severity="ticket",
    summary="the gateway at {{ $labels.instance }} runs and has nothing in production",
    runbook="tunegate releases; promote one, or run a recipe: its base model becomes the first champion",
    signals=('up{job="tunegate"}', _LIVE),
    cases=(
        Case("nothing in production", {_UP: "1x15"}, "10m", ({"job": "tunegate", "instance": "g"},)),
        Case("a champion", {_UP: "1x15", _CHAMPION: "1x15"}, "10m"),
        Case("a gateway that is down is another alert", {_UP: "0x15"}, "10m"),
    ),
)

SLOT_FAILED = Alert(
    name="TunegateSlotFailed",
    expr=queries.SLOT_FAILED.expr,
    hold="2m",
    severity="ticket",
    summary="the engine of {{ $labels.release }} does not come up",
    runbook="tunegate status gives the reason; the last lines of slots/RELEASE/vllm.log in TUNEGATE_HOME give the cause",
    signals=('tunegate_slot_state{state="failed"}',),
    cases=(
        Case("failed", {_slot("clinic-2", "failed"): "1x10"}, "5m", ({"release": "clinic-2"},)),
        Case("starting", {_slot("clinic-2", "failed"): "0x10"}, "5m"),
    ),
)

ENGINE_UNSEEN = Alert(
    name="TunegateEngineUnseen",
    expr=queries_engine.ENGINE_UNSEEN.expr,
    hold="5m",
    severity="ticket",
    summary="the engine of {{ $labels.release }} serves, and Prometheus does not see its metrics",
    runbook="does Prometheus run on the gateway's machine? curl 127.0.0.1:8080/metrics/slots lists the engines it should scrape",
    signals=(_STATES, queries_engine.ENGINES_UP.expr),
    cases=(
        Case("not scraped", {_slot("clinic-1", "ready"): "1x15"}, "10m", ({"release": "clinic-1"},)),
        Case("scraped", {_slot("clinic-1", "ready"): "1x15", _SCRAPED: "1x15"}, "10m"),
        Case("starting", {_slot("clinic-1", "ready"): "0x15"}, "10m"),
    ),
)

GATEWAY_DOWN = Alert(
    name="TunegateGatewayDown",
    expr=queries.GATEWAY_DOWN.expr,
    hold="1m",
    severity="page",
    summary="the gateway at {{ $labels.instance }} does not answer",
    runbook="is tunegate serve running? the end of serve.log in TUNEGATE_HOME says why it stopped",
    signals=('up{job="tunegate"}',),
    cases=(
        Case("down", {_UP: "0x10"}, "5m", ({"job": "tunegate", "instance": "g"},)),
        Case("up", {_UP: "1x10"}, "5m"),
    ),
)

REGISTRY_UNSEEN = Alert(
    name="TunegateRegistryUnseen",
    expr=f"{queries.REGISTRY_AGE.expr} > {REGISTRY_UNSEEN_S:g}",
    hold="1m",
    severity="page",
    summary="the registry no longer answers the {{ $labels.part }} of {{ $labels.instance }}: nothing can be promoted or rolled back",
    runbook="tunegate registry check says what is wrong with it; callers are answered meanwhile, as long as no engine has to be started",
    signals=(queries.REGISTRY_AGE.expr,),
    cases=(
        Case(
            "the supervisor has stopped hearing", {_seen("supervisor"): "0+60x5 300x15"}, "10m", ({"instance": "g", "part": "supervisor"},)
        ),
        Case("one of several workers has", {_WORKERS_SEEN: "0+60x5 300x15"}, "10m", ({"instance": "g", "part": "gateway"},)),
        Case("the rollouts' controller has died", {_seen("rollouts"): "0x15"}, "10m", ({"instance": "g", "part": "rollouts"},)),
        Case("all are answered", {_seen("supervisor"): "0+60x20", _seen("rollouts"): "0+60x20", _WORKERS_SEEN: "0+60x20"}, "10m"),
        Case("it was away for a moment", {_seen("supervisor"): "0+60x5 300 420+60x15"}, "10m"),
        Case("a gateway that is down is another alert", {_seen("supervisor"): "0+60x5 stale", _UP: "1x5 0x15"}, "10m"),
    ),
)

SERVING = (CHAMPION_DOWN, NO_CHAMPION, SLOT_FAILED, ENGINE_UNSEEN, GATEWAY_DOWN, REGISTRY_UNSEEN)
