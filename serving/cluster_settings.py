"""Where engines run as Deployments of their own: `TUNEGATE_CLUSTER_…` variables. Without an address, no cluster is asked.

Next: `cluster.py`, which keeps the Deployments as the registry wants them.
"""

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import SettingsError

PREFIX = "TUNEGATE_CLUSTER_"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ClusterSettings(BaseSettings):
    """A Kubernetes API, and what an engine's pod is made of."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    url: str = Field(
        default="", pattern=r"^(https?://[^\s/@]+/?)?$", description="Kubernetes API that runs engines, e.g. https://kubernetes.default.svc"
    )
    namespace: str = Field(default="tunegate", pattern=r"^[a-z0-9-]{1,63}$", description="namespace of the engines")
    token_file: Path = Field(default=_ACCOUNT / "token", description="file of the service account's token, read anew for every call")
    ca_file: Path = Field(default=_ACCOUNT / "ca.crt", description="file of the API's certificate authority")
    image: str = Field(default="tunegate:gpu", min_length=1, max_length=255, description="image of an engine's pod, with vLLM in it")
    claim: str = Field(
        default="",
        max_length=63,
        description="claim that holds TUNEGATE_HOME; empty: a pod fetches its model from TUNEGATE_ARTEFACT_URL",
    )
    max_replicas: int = Field(default=4, ge=1, le=1000, description="most pods of one release; vLLM's queue decides between 1 and these")
    memory: str = Field(default="48Gi", pattern=r"^[1-9][0-9]*(Mi|Gi)$", description="memory of a pod")


def load_cluster_settings() -> ClusterSettings:
    """Read the environment.

    Raises:
        SettingsError: some variables cannot be used; every one is named with its value.
    """
    try:
        return ClusterSettings()
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = [f"{PREFIX}{'.'.join(map(str, each['loc'])).upper()}={each['input']!r}: {each['msg']}" for each in found]
    raise SettingsError("these settings cannot be used:\n" + "\n".join(f"  - {fault}" for fault in faults), do="correct or unset them")
