"""What may go wrong while judging a model. The root is `training.errors.TunegateError`.

TunegateError
├── InputError
│   ├── SuiteError        a suite, rule or task file that cannot be used; carries all problems   exit 2
│   └── ReviewError       a blind review that cannot be made, voted in or closed like this       exit 2
├── EndpointError         the server under judgement did not answer as it must                   exit 1
├── ScoringError          answers that cannot be turned into numbers                             exit 1
│   └── PatternTooSlow    a rule's regular expression ran out of time                            exit 1
└── JudgeError            the judge model is not reachable, or answers nonsense                  exit 1
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal

from training.errors import InputError, TunegateError

EndpointFault = Literal["connect", "timeout", "http", "cut", "protocol"]


class SuiteError(InputError):
    """A suite, rule or task file cannot be used. `problems` holds every fault, each as `file:line: what`."""

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"{count} in the evaluation files:\n" + "\n".join(f"  {problem}" for problem in problems),
            why="a suite that is half understood would judge a model by half its rules",
            do="mend the lines above and run again",
        )
        self.problems = tuple(problems)


class ReviewError(InputError):
    """A blind review cannot be made, voted in or closed like this."""


class EndpointError(TunegateError):
    """The server under judgement could not be reached, failed, or answered something else than the API promises.

    Args:
        fault: `connect`, `timeout`, `http` (status >= 400), `cut` (stream ended too early) or `protocol`.
        status: HTTP status, 0 when there was none.
    """

    def __init__(self, what: str, *, fault: EndpointFault, status: int = 0, do: str = "") -> None:
        super().__init__(what, why="the gate needs an answer to every prompt; none is guessed", do=do or "look into the server's log")
        self.fault, self.status = fault, status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed when sent again."""
        return self.fault in ("connect", "timeout", "cut") or self.status in (429, 500, 502, 503, 504)


class ScoringError(TunegateError):
    """Answers that cannot be turned into numbers."""


class PatternTooSlow(ScoringError):
    """A rule's regular expression ran out of time on one text: a bomb, in the wild or in the making."""

    def __init__(self, pattern: str, length: int, bound_s: float) -> None:
        super().__init__(
            f"the pattern /{pattern}/ needs more than {bound_s:g} s on a text of {length} characters",
            why="an answer that cannot be judged is never taken as good, and a rule that may hang would stop the line",
            do="avoid a repetition inside a repetition, such as (a+)+, and tunegate rules test the suite",
        )


class JudgeError(TunegateError):
    """The judge model did not say whether an answer is good. That is never taken as a yes."""

    def __init__(self, what: str, *, do: str = "") -> None:
        super().__init__(what, why="an answer that was not judged is not known to be good", do=do or "look into the judge's log")


def nearest(key: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of choices, ready to be put behind an error."""
    known = sorted(set(choices))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from: {', '.join(known)}" if known else ""
