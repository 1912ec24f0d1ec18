"""`tunegate serve` whose engines say what their weights say: python -m tests.fakes_flows_server. Imports no more than a server does."""

import os
import sys
from pathlib import Path

from flows.prefect_events import prefect_outlets
from serving.engine import EngineCommand
from serving.records import Release
from serving.server import serve
from serving.settings import load_settings


def saying_engine(release: Release, port: int) -> EngineCommand:
    """The supervisor's command for one release."""
    script, weights = Path(__file__).with_name("fakes_flows_engine.py"), release.model_dir / "model.safetensors"
    asked = {"--port": port, "--model": release.id, "--weights": weights, "--max-model-len": release.serving.max_model_len}
    options = [str(part) for pair in asked.items() for part in pair]
    return EngineCommand((sys.executable, "-I", "-S", str(script), *options), {})


if __name__ == "__main__":
    serve(load_settings(), saying_engine, prefect_outlets(os.environ.get("PREFECT_API_URL")))
