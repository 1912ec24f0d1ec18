"""Whom to tell: `TUNEGATE_NOTIFY_…` variables. An outlet without its address is not used.

Next: `outlets.py`, which is made from these.
"""

from ipaddress import ip_address
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import SettingsError

PREFIX = "TUNEGATE_NOTIFY_"


class NotifySettings(BaseSettings):
    """Addresses, and the secrets that go with them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    webhook_url: SecretStr = Field(default=SecretStr(""), description="told every event as JSON by POST; https, or http on this machine")
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="signs each body: header X-Tunegate-Signature, sha256= and the hex HMAC-SHA256"
    )
    slack_url: SecretStr = Field(default=SecretStr(""), description="incoming webhook of Slack, or of what understands the same")
    smtp_host: str = Field(default="", description="mail server; empty: no mails")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="its TCP port")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="how the connection is protected; none only to this machine"
    )
    smtp_user: str = Field(default="", description="user name at the mail server; empty: no login")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="the user's password")
    mail_from: str = Field(default="", description="sender of mails")
    mail_to: str = Field(default="", description="receivers of mails, separated by commas")
    timeout_s: float = Field(default=10.0, ge=0.1, le=120, description="seconds one attempt may take")
    attempts: int = Field(default=8, ge=1, le=20, description="attempts at one event before it is given up; waits 1, 2, 4 … 300 s between")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        faults = [f"{name}: {fault}" for name in ("webhook_url", "slack_url") if (fault := _url_fault(getattr(self, name)))]
        if self.smtp_host and not (self.mail_from and self.recipients):
            faults.append("smtp_host needs mail_from and mail_to")
        if self.smtp_host and self.smtp_security == "none" and not _is_here(self.smtp_host):
            faults.append(f"smtp_security none is for a mail server on this machine, not for {self.smtp_host}")
        if self.smtp_user and not self.smtp_password.get_secret_value():
            faults.append("smtp_user needs smtp_password")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def recipients(self) -> list[str]:
        """`mail_to`, apart."""
        return [each.strip() for each in self.mail_to.split(",") if each.strip()]


def load_notify_settings() -> NotifySettings:
    """Read the environment.

    Raises:
        SettingsError: some variables cannot be used; every one is named, and none is shown.
    """
    try:
        return NotifySettings()
    except ValidationError as error:
        faults = [f"{PREFIX}{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors(include_input=False)]
    raise SettingsError("these settings cannot be used:\n" + "\n".join(f"  - {fault}" for fault in faults), do="correct or unset them")


def _url_fault(secret: SecretStr) -> str | None:
    """The address itself may be the secret (Slack's is), so it is never shown."""
    if not secret.get_secret_value():
        return None
    try:
        parts = urlsplit(secret.get_secret_value())
        host = parts.hostname or ""
    except ValueError:
        return "this is no URL"
    if parts.scheme not in ("http", "https") or not host:
        return "this is no http or https URL"
    if parts.username or parts.password:
        return "a URL with a password in it"
    return None if parts.scheme == "https" or _is_here(host) else "http is for this machine; use https"


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
