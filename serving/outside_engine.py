"""An engine that somebody else runs, behind any OpenAI-compatible address: a vLLM that is already there, KServe, production-stack.

It is looked at, never started or stopped. What it serves cannot be hashed from here; that it answers as the trained model does is for
the check at its start to say. Next: `outside_address.py`, the patterns of its address; `engines.py`, who runs which engine.
"""

import asyncio

from serving.engine_probe import Address, Pace, answered, went_silent
from serving.errors import SlotError
from serving.outside_address import fill
from serving.records import Release
from serving.settings import Settings
from serving.slot_folder import KEY_NAME, write_key
from serving.slot_keys import outside_key

_PACE = Pace(every_s=2.0, answer_s=60.0, page_s=5.0)


class OutsideEngine:
    """A release's engine at the address that the settings give for it."""

    pid = None

    def __init__(self, release: Release, settings: Settings, *, pace: Pace = _PACE) -> None:
        self.release_id, self._pace = release.id, pace
        self._folder, self._start_timeout_s = settings.slot_folder(release.id), settings.start_timeout_s
        self.base_url = fill(settings.outside_url, release.id, release.public_name)
        self.served_name = fill(settings.outside_model, release.id, release.public_name)
        self._key = outside_key(settings)

    async def start(self) -> None:
        """Keep the key where the gateway looks for it.

        Raises:
            SlotError: no address is set, or the folder cannot be written to.
        """
        if not self.base_url:
            raise SlotError(
                f"the recipe of {self.release_id} says `serving.engine: outside`, but nobody said where that engine is",
                do="set TUNEGATE_OUTSIDE_URL, e.g. to http://{release}.models.svc:8000, or let vLLM be started here: engine: vllm",
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_key(self._folder, self._key)
        except OSError as error:
            raise SlotError(f"{self._folder} cannot be written to: {error}", do="give the server's user the right to") from error

    async def ready(self) -> None:
        """Return when it has answered a real completion.

        Raises:
            SlotError: it took too long.
        """
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await answered(self._address)
        except TimeoutError:
            raise SlotError(
                f"nobody answered for {self.release_id} at {self.base_url} within {self._start_timeout_s:g} s",
                do=f"start an engine there that serves {self.served_name!r} and takes the key in TUNEGATE_OUTSIDE_KEY",
            ) from None

    async def ended(self) -> str:
        """Wait until it answers no more; returns what was seen."""
        seen = await went_silent(self._address, self._pace)
        return f"the engine of {self.release_id} at {self.base_url} {seen}"

    async def stop(self, drain_s: float) -> None:
        """Let it be: it goes on, and nobody is sent there any more."""
        (self._folder / KEY_NAME).unlink(missing_ok=True)

    @property
    def _address(self) -> Address:
        return Address(self.base_url, self.served_name, self._key)
