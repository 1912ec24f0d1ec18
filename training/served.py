"""Whether vLLM can serve what a recipe would make: asked before anything is trained, of the very vLLM that is installed.

Its registry of architectures is a table in a module that imports torch and every model's interface; the table is read out of the
module's text instead, so that a plan costs no import. Next: `memory.py`, whose plan says it; `flows/stages.py`, which refuses.
"""

import ast
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from training.config import SftSection
from training.errors import ModelError

_REGISTRY = Path("model_executor") / "models" / "registry.py"
# Those that answer with text: vLLM's own code for text and for more than text, and what it runs by transformers' code.
_TABLES = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")


@cache
def served_architectures() -> frozenset[str]:
    """Names as in `architectures` of a config.json; none where vLLM is not installed.

    Raises:
        ModelError: this vLLM keeps its registry in another way.
    """
    found = find_spec("vllm")
    if found is None or found.origin is None:
        return frozenset()
    path = Path(found.origin).parent / _REGISTRY
    names: dict[str, frozenset[str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(target := node.targets[0], ast.Name):
            names[target.id] = frozenset(
                key.value for key in node.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )
    if missing := [table for table in _TABLES if not names.get(table)]:
        raise ModelError(f"{path} has no {' and no '.join(missing)}", do="install the vLLM that deploy/requirements names")
    return frozenset().union(*(names[table] for table in _TABLES))


def servable(architecture: str, sft: SftSection) -> tuple[bool, str]:
    """Whether, and why. The line serves merged bf16 weights: an adapter's rank and layers do not matter, method and architecture do."""
    if not sft.tuning.mergeable:
        return False, f"method {sft.method} puts something beside the weights that cannot be folded in, and vLLM serves weights"
    served = served_architectures()
    if not served:
        return True, f"merged bf16 weights of {architecture}; no vLLM is installed here that could be asked whether it serves those"
    if architecture in served:
        return True, f"merged bf16 weights of {architecture}, which the installed vLLM serves"
    return False, f"architecture {architecture!r} is not among the {len(served)} of the installed vLLM"


def require_servable(base: Path, sft: SftSection) -> None:
    """See to it that what is made of the base model in this folder can be served.

    Raises:
        ModelError: it cannot.
    """
    named = json.loads((base / "config.json").read_text(encoding="utf-8")).get("architectures") or ["none named"]
    possible, because = servable(str(named[0]), sft)
    if not possible:
        raise ModelError(
            f"{base / 'config.json'}: vLLM could not serve what is trained from this base model: {because}",
            why="every hour of training would end before the first answer",
            do="choose another `model.base`, or set `purpose: experiment` to train it all the same",
        )
