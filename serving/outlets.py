"""Ways to tell people: a webhook, Slack, mail. Each call makes one attempt and says so if it failed; it blocks for `timeout_s` at most.

No redirect is followed and no proxy asked: what is told goes to the address of the settings and nowhere else.
Next: `notifier.py`, which tries again.
"""

import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from serving.audit_log import AuditLine
from serving.notices import Notice, as_json, as_mail, as_slack
from serving.notify_settings import NotifySettings

_READ = 65_536


class NotTold(Exception):
    """An attempt failed. The message holds no address and no secret."""


class Outlet(Protocol):
    """Somebody to tell."""

    name: str

    def tell(self, notice: Notice, line: AuditLine) -> None:
        """Make one attempt.

        Raises:
            NotTold: it failed.
        """


class HttpOutlet:
    """POSTs JSON to one address; any 2xx will do."""

    def __init__(
        self, name: str, url: SecretStr, body: Callable[[Notice], Mapping[str, Any]], timeout_s: float, secret: SecretStr | None = None
    ) -> None:
        self.name, self._url, self._body, self._timeout_s, self._secret = name, url, body, timeout_s, secret

    def tell(self, notice: Notice, line: AuditLine) -> None:
        """See `Outlet`."""
        body = json.dumps(self._body(notice)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "tunegate"}
        if self._secret is not None and self._secret.get_secret_value():
            signed = hmac.new(self._secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
            headers["X-Tunegate-Signature"] = f"sha256={signed}"
        try:
            status = self._post(body, headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotTold(f"{self.name} could not be reached ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise NotTold(f"{self.name} answered {status}")

    def _post(self, body: bytes, headers: Mapping[str, str]) -> int:
        parts = urlsplit(self._url.get_secret_value())
        host, timeout_s = parts.hostname or "", self._timeout_s
        connection = (
            http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        )
        try:
            connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, dict(headers))
            answer = connection.getresponse()
            answer.read(_READ)
            return answer.status
        finally:
            connection.close()


class MailOutlet:
    """Sends a mail."""

    name = "mail"

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings

    def tell(self, notice: Notice, line: AuditLine) -> None:
        """See `Outlet`."""
        settings = self._settings
        try:
            with self._connected() as server:
                if settings.smtp_user:
                    server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
                server.send_message(as_mail(notice, settings.mail_from, settings.recipients, line))
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise NotTold(f"the mail server could not be used ({type(error).__name__})") from None

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.smtp_security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(settings.smtp_host, settings.smtp_port, timeout=settings.timeout_s, context=context)
        server = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=settings.timeout_s)
        if settings.smtp_security == "starttls":
            try:
                server.starttls(context=ssl.create_default_context())
            except BaseException:
                server.close()
                raise
        return server


def outlets_of(settings: NotifySettings) -> tuple[Outlet, ...]:
    """Every outlet that has an address."""
    found: list[Outlet] = []
    if settings.webhook_url.get_secret_value():
        found.append(HttpOutlet("webhook", settings.webhook_url, as_json, settings.timeout_s, settings.webhook_secret))
    if settings.slack_url.get_secret_value():
        found.append(HttpOutlet("slack", settings.slack_url, as_slack, settings.timeout_s))
    if settings.smtp_host:
        found.append(MailOutlet(settings))
    return tuple(found)
