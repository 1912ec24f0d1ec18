"""The key of a slot for a gateway, which may run far from the server: without one, nothing is sent there.

An engine on loopback is asked only by gateways that share this loopback with whoever started it; its key lies in the slot's folder. One
at any other address is somebody else's, and has the key of the settings (`TUNEGATE_OUTSIDE_KEY`), which every gateway is given as the
server is. Next: `routing.py`, which asks.
"""

import logging

from pydantic import SecretStr

from serving.machine import loopback
from serving.outside_address import is_loopback, keeps_a_secret
from serving.records import SlotInfo
from serving.settings import Settings
from serving.slot_folder import read_key, read_loopback

_log = logging.getLogger(__name__)

_NO_KEY = "none"


def outside_key(settings: Settings) -> SecretStr:
    """The key that an engine outside is asked with; a word that says nothing, where it wants none."""
    return settings.outside_key if settings.outside_key.get_secret_value() else SecretStr(_NO_KEY)


class SlotKeys:
    """A gateway's `routing.KeyReader`; says once for each slot why it is not asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._refused: set[tuple[str, str]] = set()

    def __call__(self, slot: SlotInfo) -> SecretStr | None:
        """Its key; None when there is none, or the slot must not be asked from here."""
        url = slot.base_url or ""
        fault = self._fault(slot.release_id, url)
        if fault is None:
            return read_key(self._settings.slot_folder(slot.release_id)) if is_loopback(url) else outside_key(self._settings)
        if (slot.release_id, url) not in self._refused:
            self._refused.add((slot.release_id, url))
            _log.error("slot %s at %s is not asked: %s", slot.release_id, url, fault)
        return None

    def _fault(self, release_id: str, url: str) -> str | None:
        if is_loopback(url):
            here = read_loopback(self._settings.slot_folder(release_id)) == loopback()
            return None if here else "its loopback is not this one; run this gateway beside its server, with the same TUNEGATE_HOME"
        kept = keeps_a_secret(url) or not self._settings.outside_key.get_secret_value()
        return None if kept else "TUNEGATE_OUTSIDE_KEY would cross the network unencrypted; give the engine an https:// address"
