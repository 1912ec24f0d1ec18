"""What a person meets at the top of the line, and the exit codes of the command.

0    done
1    something failed; the message says what to do
2    the recipe, the data or the arguments are wrong; nothing was started
3    the verdict is not PASS, of the gate or of a rollout: the candidate was not promoted
4    refused: the release is in another state, or the evidence has changed
130  stopped by Ctrl-C; what `tunegate run` had finished is not done again
"""

from collections.abc import Sequence

from training.errors import InputError, TunegateError

DONE, FAILED, BAD_INPUT, NOT_PASSED, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130


class RecipeError(InputError):
    """A recipe cannot be used. `problems` holds every fault, each as `file:line: key: what`."""

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"{count} in the recipe:\n" + "\n".join(f"  {problem}" for problem in problems),
            why="nothing was started: a recipe that is half understood would train another model than you meant",
            do="mend the lines above; flows/recipes/README.md lists every key",
        )
        self.problems = tuple(problems)


class StageFailed(TunegateError):
    """A stage's process ended without its record."""


class StageKilled(StageFailed):
    """A stage's process was killed from outside, by a kernel short of memory or by somebody; the next goes on where it stopped."""


class OutOfReach(StageFailed):
    """A stage needed something outside, such as the hub, which did not answer: it may in a minute."""


class ServingFailed(TunegateError):
    """The server, or a slot of it, did not come up in time."""


class SlotEnded(ServingFailed):
    """An engine ended where it should have answered; the server starts it again."""


class NoRoom(ServingFailed):
    """The engine has no place beside those that run."""


class PromotionEnded(TunegateError):
    """A promotion by steps was taken back: the release was worse than the champion, or nothing could be said about it."""

    exit_code = NOT_PASSED


class SwitchFailed(TunegateError):
    """Requests failed while the traffic was switched."""


class ParityBroken(TunegateError):
    """The live server is not the model that was trained, or is asked in another way; the release is rejected."""


class NothingJudged(InputError):
    """A release that was never judged on this machine."""


class PrefectUnreachable(TunegateError):
    """The Prefect server does not answer, or takes nothing."""


class DeploymentError(InputError):
    """A file of deployments cannot be used. Every fault is named, each as `file:line: key: what`."""


class BackupError(TunegateError):
    """A backup is not whole, or may not be put back here."""
