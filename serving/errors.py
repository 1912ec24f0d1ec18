"""What can go wrong between a release and its callers.

TunegateError
├── SettingsError (InputError)        a TUNEGATE_ variable that cannot be used                   exit 2
├── RegistryError                     the registry file is gone, torn or too new                 exit 1
│   └── RegistryUnreachable           it is locked, or its server does not answer
├── UnknownRelease (InputError)       no release, public name or key of that name                exit 2
├── UnknownKey (InputError)
├── TransitionRefused                 the release is not in a state from which this is allowed   exit 1
│   ├── EvidenceMismatch              what was approved is not what is there
│   ├── ChampionChanged               judged against another release than the one in production
│   ├── NoChampion                    nothing in production, or nothing to go back to
│   ├── RunUnderWay                   another live process runs the same recipe
│   ├── LeaseLost                     this run was taken for dead, and another may go on in its place
│   ├── ApprovalExpired               it was approved, or has waited, for too long
│   └── ApproverRefused               the terms of the recipe want somebody else to sign
├── SlotError                         an engine process that did not come up
├── StoreError                        models kept elsewhere cannot be had                        exit 1
│   └── StoreUnreachable              the store does not answer
└── ServerError                       the gateway cannot start
    ├── PortInUse
    └── AlreadyServing
"""

from training.errors import InputError, TunegateError


class SettingsError(InputError):
    """One or more settings cannot be used; all of them are named."""


class RegistryError(TunegateError):
    """The registry cannot be read or written."""


class RegistryUnreachable(RegistryError):
    """The registry is busy or does not answer now: the same again may work later."""


class UnknownRelease(InputError):
    """No release, or no public name, is called that."""


class UnknownKey(InputError):
    """No API key has that id."""


class TransitionRefused(TunegateError):
    """The release is in a state from which this step is not allowed, often because somebody else was faster."""


class EvidenceMismatch(TransitionRefused):
    """The digest given is not the digest of the evidence this release was submitted or approved with."""


class ChampionChanged(TransitionRefused):
    """The release was judged against a champion that is no longer in production."""


class NoChampion(TransitionRefused):
    """The public name has nothing in production, or nothing to go back to."""


class ApprovalExpired(TransitionRefused):
    """The release has waited for its approval for too long, or its approval has waited to be used."""


class ApproverRefused(TransitionRefused):
    """The terms under which this release may be approved do not allow this person's signature."""


class SlotError(TunegateError):
    """An engine process did not come up, or its artefact may not be served."""


class ClusterError(TunegateError):
    """Kubernetes' API cannot be asked, or refuses."""


class StoreError(TunegateError):
    """Where models are kept cannot be reached, or does not hold the one that is wanted."""


class StoreUnreachable(StoreError):
    """The store does not answer now: the same again may work later."""


class RunUnderWay(TransitionRefused):
    """Another live process runs the same recipe, or holds off every run."""


class LeaseLost(TransitionRefused):
    """This run was taken for dead; another one may be at work in the same folders."""


class ServerError(TunegateError):
    """The server cannot start."""


class PortInUse(ServerError):
    """Another process listens where the gateway should."""


class AlreadyServing(ServerError):
    """Another live server looks after this registry."""
