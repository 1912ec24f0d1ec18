"""The process that runs lm-eval: warmed up once, asked twice, and never waited for when it is gone."""

import pytest

from evaluation.config import ForgettingSection
from evaluation.errors import EndpointError, ScoringError, SuiteError
from evaluation.lm_eval_process import TaskHost, error_as_json, error_from_json
from tests.fakes_evaluation import FakeModel, serve
from training.errors import TunegateError


@pytest.mark.slow
def test_one_process_answers_for_two_models_and_its_death_is_said() -> None:
    section = ForgettingSection(items=4)
    with TaskHost() as host, serve(FakeModel()) as endpoint:
        host.warm_up(section)
        process = host.process
        first, second = host.run(endpoint, section, 8), host.run(endpoint, section, 8)
        assert first == second
        assert len(first[0].correct) == 4
        assert host.process is process
        assert process is not None
        process.kill()
        with pytest.raises(ScoringError, match="ended with status -9"):
            host.run(endpoint, section, 8)
        assert host.process is None


@pytest.mark.parametrize(
    "error",
    [
        SuiteError(["a.yaml:1: bad", "b.yaml:2: worse"]),
        ScoringError("task t gave nothing", why="because", do="mend it"),
        EndpointError("no answer", fault="http", do="look"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_through_the_pipe_as_it_was(error: TunegateError) -> None:
    back = error_from_json(error_as_json(error))
    assert (type(back), str(back)) == (type(error), str(error))
