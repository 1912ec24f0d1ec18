"""Where this machine keeps things and how long it waits: environment variables, never the recipe.

Every field is read from `TUNEGATE_<NAME>`. Knows nothing of models. Next: `server.py`, which is given one `Settings`.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import SettingsError
from serving.outside_address import check_address, check_pattern, keeps_a_secret

_PREFIX = "TUNEGATE_"


class Settings(BaseSettings):
    """Everything a running tunegate takes from its surroundings."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    home: Path = Field(default=Path(".tunegate"), description="folder of the registry, base models, runs and slots; made absolute")
    registry_url: SecretStr = Field(
        default=SecretStr(""), description="sqlite:///<path> or postgresql://user:password@host/database; empty means registry.db in home"
    )
    artefact_url: str = Field(
        default="",
        description="where models are kept for other machines (file, s3, gs, az); `${NAME}` is filled in; empty: nowhere",
    )
    artefact_transfers: int = Field(default=8, ge=1, le=64, description="files of a model on their way to or from there at a time")
    host: str = Field(default="127.0.0.1", min_length=1, description="address the gateway listens on")
    port: int = Field(default=8080, ge=1, le=65535, description="TCP port the gateway listens on")
    gateway_workers: int = Field(
        default=1, ge=1, le=64, description="processes that take callers; more than one needs Linux; SIGHUP exchanges them without a loss"
    )

    start_server: bool = Field(
        default=True, description="whether a run starts a server where none lives; a container's would end with the container"
    )
    reconcile_s: float = Field(default=1.0, ge=0.05, le=60, description="seconds between two looks at what should run")
    poll_s: float = Field(default=0.02, ge=0.01, le=5, description="seconds between two looks for a change in the registry")
    warm_s: float = Field(default=300.0, ge=0, le=86_400, description="seconds a retired champion stays ready for a rollback")
    start_timeout_s: float = Field(default=600.0, ge=1, le=7_200, description="seconds an engine may take to its first answer")
    turn_timeout_s: float = Field(
        default=3_600.0,
        ge=0,
        le=2_592_000,
        description="seconds a promotion waits for another process that promotes the same release, before it says for whom and gives up",
    )
    silent_s: float = Field(
        default=120.0,
        ge=0,
        le=7_200,
        description="seconds in which a running engine answers nothing and makes no token before it counts as crashed; 0: never",
    )
    restart_first_s: float = Field(default=1.0, ge=0.01, le=600, description="seconds before a crashed engine's restart; doubles each time")
    restart_cap_s: float = Field(default=60.0, ge=0.01, le=3_600, description="most seconds between two restarts of an engine")
    drain_s: float = Field(default=30.0, ge=0, le=3_600, description="seconds requests in flight are given when a slot or the server stops")

    cpu_bind: str = Field(
        default="nobind",
        pattern=r"^(auto|nobind|[0-9]+([,|-][0-9]+)*)$",
        description="cores of an engine on a CPU, as vLLM writes them: nobind, auto, or e.g. 0-7 (one | between two workers)",
    )
    outside_url: str = Field(
        default="",
        max_length=500,
        description="address, without /v1, of the engines of recipes with `serving.engine: outside`; {release} and {name} are filled in",
    )
    outside_model: str = Field(
        default="{release}", min_length=1, max_length=500, description="what such an engine calls the model; {release} and {name} likewise"
    )
    outside_key: SecretStr = Field(default=SecretStr(""), description="key that such an engine asks for; empty: none")

    tls_certificate: Path | None = Field(
        default=None, description="PEM file; with tls_key the gateway speaks HTTPS, without them HTTP; read again when it changes"
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's private key, without a passphrase")

    signing_key: Path | None = Field(
        default=None, description="PEM file of an elliptic curve's private key that signs each release's model; none: not signed"
    )
    signing_key_password: SecretStr = Field(default=SecretStr(""), description="password of signing_key, where it has one")
    verify_key: Path | None = Field(
        default=None, description="PEM file of the public key; with it no model is served whose signature does not hold"
    )

    connect_timeout_s: float = Field(default=5.0, ge=0.1, le=60, description="seconds to connect to a slot")
    idle_timeout_s: float = Field(default=60.0, ge=0.1, le=3_600, description="seconds without a byte from a slot before giving up")
    total_timeout_s: float = Field(default=600.0, ge=1, le=7_200, description="seconds one request may take in all")
    head_timeout_s: float = Field(default=10.0, ge=0.1, le=600, description="seconds a caller may take to send a request's head")
    body_timeout_s: float = Field(default=30.0, ge=0.1, le=600, description="seconds a caller may take to send a request body")
    queue_timeout_s: float = Field(default=10.0, ge=0, le=3_600, description="seconds a request may wait for a place, or for a slot")
    change_timeout_s: float = Field(
        default=120.0, ge=0, le=3_600, description="seconds a request may wait while its model's engine is exchanged or first started"
    )
    max_head_bytes: int = Field(default=32_768, ge=1024, le=1_048_576, description="largest target and headers of a request, bytes")
    max_connections: int = Field(default=8_192, ge=1, le=1_000_000, description="connections at a time before new ones are refused")
    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=268_435_456, description="largest request body, bytes")
    max_json_depth: int = Field(default=32, ge=4, le=512, description="deepest nesting of a request body")
    max_tokens: int = Field(default=4096, ge=1, le=1_048_576, description="most tokens one request may ask for")
    max_n: int = Field(default=4, ge=1, le=128, description="most answers one request may ask for")
    max_in_flight: int = Field(default=256, ge=1, le=100_000, description="requests that slots work on at a time")
    max_queue: int = Field(default=256, ge=0, le=100_000, description="requests that wait for a place before callers get 429")
    retry_ratio: float = Field(default=0.1, ge=0, le=1, description="most requests sent to a second slot, as a share of all")
    capture_ratio: float = Field(
        default=0.0, ge=0, le=1, description="share of answers kept with their prompts, personal data masked; 0 keeps none"
    )
    capture_max_mb: int = Field(default=256, ge=1, le=1_048_576, description="most megabytes of kept answers, shadow answers included")
    capture_days: float = Field(default=30.0, gt=0, le=3_650, description="days after which kept answers are deleted")
    live_checks_per_minute: float = Field(
        default=30.0, ge=0, le=6_000, description="most live answers a minute that are held against the rules and the suite; 0: none"
    )
    retrain_days: float = Field(
        default=30.0, ge=0, le=3_650, description="days without a new release after which a retraining is overdue; 0: never"
    )
    grafana_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s()<>]+)?$",
        max_length=500,
        description="Grafana's address, for links in Prefect; empty: no links",
    )
    max_shadows: int = Field(default=8, ge=0, le=1_000, description="copies on their way to shadow releases at a time; more are not made")
    sticky_by_key: bool = Field(default=False, description="a key's requests stay with one release where they name no user or conversation")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("outside_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        return check_address(url) if url else url

    @field_validator("outside_model")
    @classmethod
    def _a_pattern(cls, name: str) -> str:
        return check_pattern(name)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.outside_key.get_secret_value() and not keeps_a_secret(self.outside_url):
            raise ValueError("outside_key would cross the network unencrypted: give outside_url as https://…, or set no key")
        if self.restart_cap_s < self.restart_first_s:
            raise ValueError(f"restart_cap_s ({self.restart_cap_s}) is below restart_first_s ({self.restart_first_s})")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are set together or not at all")
        return self

    @property
    def database_url(self) -> SecretStr:
        """The registry's URL, with the default filled in."""
        return self.registry_url if self.registry_url.get_secret_value() else SecretStr(f"sqlite:///{self.home / 'registry.db'}")

    @property
    def live_folder(self) -> Path:
        """Where it is kept what live answers are held against."""
        return self.home / "live"

    @property
    def kept_folder(self) -> Path:
        """Where kept prompts and answers lie."""
        return self.home / "kept"

    def slot_folder(self, release_id: str) -> Path:
        """Where a slot keeps its key and its log."""
        return self.home / "slots" / release_id


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: some variables cannot be used; every one is named with its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors(include_url=False)]
    raise SettingsError(
        "these settings cannot be used:\n" + "\n".join(f"  - {fault}" for fault in faults),
        do="correct or unset them; every setting, its unit and its bounds are in serving/settings.py",
    )


def _fault(details: ErrorDetails) -> str:
    if not details["loc"]:
        return details["msg"]
    field = str(details["loc"][0])
    fault = f"{_PREFIX}{field.upper()}={details['input']!r}: {details['msg']}"
    if field == "port" and str(details["input"]).startswith("tcp://"):
        # Kubernetes writes such a variable into every pod next to a Service called tunegate.
        fault += " (written by Kubernetes for a Service called tunegate: set enableServiceLinks: false in the pod)"
    return fault
