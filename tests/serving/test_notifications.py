"""Who is told what, once and in order, whatever the receivers do; against real sockets."""

import email
import email.policy
import hashlib
import hmac
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from serving.approval_terms import Signer
from serving.errors import SettingsError
from serving.notices import as_slack, notice_of
from serving.notify_settings import NotifySettings, load_notify_settings
from serving.outlets import HttpOutlet, MailOutlet, NotTold, outlets_of
from serving.registry import Registry
from serving.run_leases import promotion_of, this_process
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, Clock, approved, canary, candidate, champion, url_in
from tests.fakes_sinks import HttpSink, MailSink, certificate, http_sink, mail_sink
from training.errors import TunegateError


@pytest.fixture(scope="module")
def server() -> Iterator[HttpSink]:
    with http_sink() as made:
        yield made


@pytest.fixture
def sink(server: HttpSink) -> HttpSink:
    for kept in (server.statuses, server.bodies, server.raw, server.headers, server.paths):
        kept.clear()
    return server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    with Registry(url_in(tmp_path), now=clock) as made:
        yield made


def webhook(sink: HttpSink, secret: str = "") -> HttpOutlet:
    (outlet,) = outlets_of(NotifySettings(webhook_url=SecretStr(sink.url), webhook_secret=SecretStr(secret), timeout_s=2))
    assert isinstance(outlet, HttpOutlet)
    return outlet


def events(sink: HttpSink) -> list[tuple[str, str]]:
    return [(body["event"].removeprefix("tunegate."), body["release"]) for body in sink.bodies]


def test_each_turn_of_a_release_is_told_once_and_in_order(registry: Registry, sink: HttpSink) -> None:
    champion(registry)
    second = approved(registry, digest="b" * 64)
    registry.promote(second.id, EVIDENCE, "bob")
    registry.rollback("clinic", "bob", "worse")
    registry.reject(candidate(registry, digest="c" * 64).id, "gate", "FAIL")
    notifier, outlet = registry.notifier(3), webhook(sink)
    assert notifier.bring_up_to_date(outlet) == len(sink.bodies)
    assert notifier.bring_up_to_date(outlet) == 0
    assert events(sink) == [
        ("promoted", "clinic-1"),
        ("waiting", "clinic-2"),
        ("approved", "clinic-2"),
        ("promoted", "clinic-2"),
        ("rolled_back", "clinic-2"),
        ("rejected", "clinic-3"),
    ]


def test_a_canary_that_is_withdrawn_is_not_approved_a_second_time(registry: Registry, sink: HttpSink) -> None:
    rollout = canary(registry)
    registry.rollouts.withdraw(rollout, "controller", "INCONCLUSIVE", "too little data")
    registry.notifier(3).bring_up_to_date(webhook(sink))
    assert [event for event, release in events(sink) if release == "clinic-2"] == ["waiting", "approved"]


def test_a_receiver_that_fails_is_told_again_later_and_the_next_event_waits_its_turn(
    registry: Registry, clock: Clock, sink: HttpSink
) -> None:
    approved(registry, digest="b" * 64)
    notifier, outlet = registry.notifier(5), webhook(sink)
    sink.statuses += [503, 302]
    assert notifier.bring_up_to_date(outlet) == 0
    assert notifier.bring_up_to_date(outlet) == 0  # it is not due yet
    assert len(sink.bodies) == 1
    clock.forward(1.1)
    assert notifier.bring_up_to_date(outlet) == 0
    clock.forward(2.1)
    assert notifier.bring_up_to_date(outlet) == 2
    assert [event for event, _ in events(sink)] == ["waiting", "waiting", "waiting", "approved"]
    assert len({body["id"] for body in sink.bodies}) == 2
    assert set(sink.paths) == {"/hook"}  # nobody follows a redirect


def test_after_its_last_attempt_an_event_is_given_up_and_the_next_is_told(registry: Registry, clock: Clock, sink: HttpSink) -> None:
    approved(registry, digest="b" * 64)
    notifier, outlet = registry.notifier(2), webhook(sink)
    sink.statuses += [500, 500]
    for _ in range(3):
        notifier.bring_up_to_date(outlet)
        clock.forward(400)
    assert [event for event, _ in events(sink)] == ["waiting", "waiting", "approved"]


def test_who_dies_while_telling_leaves_the_event_to_the_next(registry: Registry, clock: Clock, sink: HttpSink) -> None:
    champion(registry)

    class Killed(HttpOutlet):
        def tell(self, *_: Any) -> None:
            raise SystemExit

    outlet = webhook(sink)
    with pytest.raises(SystemExit):
        registry.notifier(3).bring_up_to_date(Killed("webhook", SecretStr(sink.url), lambda _: {}, 1))
    assert registry.notifier(3).bring_up_to_date(outlet) == 0
    clock.forward(timedelta(minutes=4).total_seconds())
    assert registry.notifier(3).bring_up_to_date(outlet) == 1


def test_of_many_who_tell_at_once_one_tells(registry: Registry, sink: HttpSink) -> None:
    champion(registry)
    outlet = webhook(sink)
    threads = [threading.Thread(target=registry.notifier(3).bring_up_to_date, args=(outlet,)) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert events(sink) == [("promoted", "clinic-1")]


def test_a_new_outlet_is_told_the_news_and_not_the_past(registry: Registry, clock: Clock, sink: HttpSink) -> None:
    champion(registry)
    clock.forward(3601)
    approved(registry, digest="b" * 64)
    registry.notifier(3).bring_up_to_date(webhook(sink))
    assert events(sink) == [("waiting", "clinic-2"), ("approved", "clinic-2")]


def test_people_are_told_of_a_run_that_failed_and_of_one_that_died_and_of_a_failure_that_comes_back_once(
    registry: Registry, clock: Clock, sink: HttpSink
) -> None:
    for _ in range(3):
        with pytest.raises(TunegateError), registry.runs.held("demo", "ann"):
            raise TunegateError("the disk is full", why="x")
        with pytest.raises(TunegateError), registry.runs.noticed("look-for-data of demo.yaml", "look-for-data"):
            raise TunegateError("https://user:secret@data.example/rows is gone")
        clock.forward(900)
    registry.runs.begin(promotion_of("clinic-2"), "eve", replace(this_process(), pid=2**22 + 1))
    registry.runs.bury_the_dead()
    registry.notifier(3).bring_up_to_date(webhook(sink))
    assert [body["text"] for body in sink.bodies] == [
        "run of demo has failed (by ann): the disk is full",
        "look-for-data of demo.yaml has failed (by look-for-data): https://user:***@data.example/rows is gone",
        "promotion of clinic-2 has failed (by eve): its process is gone",
    ]


def test_an_emergency_is_told_with_its_reason(registry: Registry, sink: HttpSink) -> None:
    release = candidate(registry)
    registry.submit(release.id, EVIDENCE, None, "gate")
    registry.approvals.override(release.id, EVIDENCE, Signer("ann"), "the old model gives away secrets")
    registry.notifier(3).bring_up_to_date(webhook(sink))
    assert sink.bodies[-1]["reason"] == "EMERGENCY: the old model gives away secrets"
    assert sink.bodies[-1]["actor"] == "ann"


def test_a_webhook_is_signed(registry: Registry, sink: HttpSink) -> None:
    champion(registry)
    registry.notifier(3).bring_up_to_date(webhook(sink, "shared"))
    assert sink.headers[0]["X-Tunegate-Signature"] == "sha256=" + hmac.new(b"shared", sink.raw[0], hashlib.sha256).hexdigest()


def test_text_of_others_cannot_act_in_slack_nor_carry_credentials(registry: Registry) -> None:
    registry.reject(candidate(registry).id, "eve\r\nBcc: x", "<!channel> see\n postgresql://u:secret@host/db?password=hidden")
    notice = notice_of(registry.approvals.lines()[-1])
    assert notice is not None
    text = as_slack(notice)["text"]
    assert "&lt;!channel&gt;" in text
    assert "\n" not in text
    assert "secret" not in text
    assert "hidden" not in text


def test_a_mail_says_it_to_everybody_and_its_headers_hold_nothing_of_others(registry: Registry) -> None:
    registry.reject(candidate(registry).id, "eve\r\nBcc: x@example.org", "太短了\r\nSubject: owned")
    with mail_sink() as sink:
        registry.notifier(3).bring_up_to_date(mail_outlet(sink))
    (raw,) = sink.mails
    mail = email.message_from_bytes(raw.encode(), policy=email.policy.default)
    assert mail["Subject"] == "tunegate: clinic-1 is rejected"
    assert (mail["Bcc"], mail["To"]) == (None, "bob@example.org, eve@example.org")
    assert "太短了" in mail.get_content()  # type: ignore[attr-defined]  # an EmailMessage, by its policy
    assert len(sink.receivers) == 2


def test_a_login_and_a_mail_go_over_starttls_and_over_nothing_else(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the certificate is nobody's that is trusted: neither name nor password nor mail leaves. Then it is trusted."""
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    champion(registry)
    line = registry.approvals.lines()[-1]
    notice = notice_of(line)
    assert notice is not None
    with mail_sink(context) as sink:
        outlet = mail_outlet(sink, smtp_security="starttls", smtp_user="me", smtp_password=SecretStr("hush"))
        with pytest.raises(NotTold, match="SSLCertVerificationError"):
            outlet.tell(notice, line)
        assert (sink.mails, [verb for verb in sink.verbs if verb not in ("EHLO", "STARTTLS")]) == ([], [])
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        outlet.tell(notice, line)
    assert len(sink.mails) == 1
    assert [verb for verb in sink.verbs if verb.endswith("+")] == ["EHLO+", "AUTH+", "MAIL+", "RCPT+", "RCPT+", "DATA+", "QUIT+"]


def test_what_understands_slack_is_told_a_line_of_text(registry: Registry, sink: HttpSink) -> None:
    champion(registry)
    (outlet,) = outlets_of(NotifySettings(slack_url=SecretStr(sink.url), timeout_s=2))
    assert registry.notifier(3).bring_up_to_date(outlet) == 1
    assert sink.bodies == [{"text": "clinic-1 is in production (by ann): first champion", "unfurl_links": False}]


def mail_outlet(sink: MailSink, **changes: Any) -> MailOutlet:
    values: dict[str, Any] = {
        "smtp_host": "127.0.0.1",
        "smtp_port": sink.port,
        "smtp_security": "none",
        "mail_from": "tunegate@example.org",
        "mail_to": "bob@example.org, eve@example.org",
        "timeout_s": 10,
    }
    return MailOutlet(NotifySettings(**values | changes))


def test_nobody_at_the_other_end_is_an_attempt_that_failed_and_names_no_address(registry: Registry) -> None:
    champion(registry)
    line = registry.approvals.lines()[-1]
    notice = notice_of(line)
    assert notice is not None
    url = SecretStr(f"http://127.0.0.1:{free_port()}/services/T0/B0/secret-path")
    mail = NotifySettings(smtp_host="127.0.0.1", smtp_port=free_port(), smtp_security="none", mail_from="a@b", mail_to="c@d", timeout_s=1)
    for outlet in (*outlets_of(NotifySettings(slack_url=url, timeout_s=1)), MailOutlet(mail)):
        with pytest.raises(NotTold) as failed:
            outlet.tell(notice, line)
        assert "127.0.0.1" not in str(failed.value)
        assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WEBHOOK_URL": "ftp://x/secret-path"}, "webhook_url: this is no http or https URL"),
        ({"WEBHOOK_URL": "https://user:secret-path@x/"}, "a URL with a password in it"),
        ({"SLACK_URL": "http://example.org/secret-path"}, "http is for this machine; use https"),
        ({"SMTP_HOST": "mail.example.org"}, "smtp_host needs mail_from and mail_to"),
        (
            {"SMTP_HOST": "mail.example.org", "SMTP_SECURITY": "none", "MAIL_FROM": "a@b", "MAIL_TO": "c@d"},
            "smtp_security none is for a mail server on this machine",
        ),
        ({"SMTP_USER": "me"}, "smtp_user needs smtp_password"),
        ({"TIMEOUT_S": "soon"}, "TUNEGATE_NOTIFY_TIMEOUT_S"),
    ],
)
def test_settings_that_cannot_be_used_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"TUNEGATE_NOTIFY_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_notify_settings()
    assert said in str(refused.value)
    assert "secret-path" not in str(refused.value)
