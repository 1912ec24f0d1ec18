"""The certificate that callers see, by file. When the files are written anew, new connections get the new one; nothing is restarted.

Files that cannot be used, such as a certificate whose key has not been written yet, change nothing: callers go on with the one before.
Next: `gateway_door.py`, which looks every so often.
"""

import logging
import ssl
from pathlib import Path

from serving.errors import SettingsError
from serving.settings import Settings

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class Certificate:
    """How to speak HTTPS: `context` is None where no certificate is set.

    Raises:
        SettingsError: the files cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen = self._stamps()
        self.context = tls_context(settings)

    def look(self) -> None:
        """Read the files if they have changed since they were last looked at."""
        if self.context is None or (stamps := self._stamps()) == self._seen:
            return
        self._seen = stamps
        try:
            tls_context(self._settings)  # first elsewhere: a key that does not fit would spoil the context that is in use
            _load(self.context, self._settings)
        except SettingsError as error:
            _log.error("callers go on with the certificate that was there before: %s", error)
        else:
            _log.info("new connections get the certificate that is now in %s", self._settings.tls_certificate)

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(file) for file in (self._settings.tls_certificate, self._settings.tls_key) if file is not None)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """How to speak HTTPS; None without a certificate.

    Raises:
        SettingsError: the files cannot be used.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    if settings.tls_certificate is None:
        return
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"TUNEGATE_TLS_CERTIFICATE={settings.tls_certificate} and TUNEGATE_TLS_KEY={settings.tls_key} cannot be used: {error}",
            why="the gateway would have to speak HTTP where HTTPS was asked for",
            do="give a PEM certificate (chain) and its PEM key without a passphrase, readable by this user; or unset both",
        ) from error


def _stamp(file: Path) -> _Stamp:
    """Differs when somebody has written the file, put another in its place, or turned its link elsewhere."""
    try:
        seen = file.stat()
    except OSError:
        return (0, 0, 0)
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns)
