"""A chat template for base models that have none: texts one after another, and the end token behind each answer.

It goes into the base model's own folder here, so that rows are rendered, the outcome is merged and the server is asked by the very same
template, and loss is on the completions alone, as it is on answers everywhere. Next: `training/base_model.py`, which puts it there.
"""

import json
from pathlib import Path

from training.errors import ModelError

TEMPLATE_FILE = "chat_template.jinja"

_BODY = (
    "{% for message in messages %}{{ message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def write_completion_template(folder: Path) -> None:
    """Give the model in `folder` the plain template.

    Raises:
        ModelError: it has one of its own, or its tokenizer has no end token.
    """
    from training.tokenizer import load_tokenizer  # a model that is there already must not wait for these libraries

    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if (folder / TEMPLATE_FILE).exists() or settings.get("chat_template"):
        raise ModelError(
            "`model.template` is completion, and the base model has a chat template of its own",
            why="it was trained to be asked by that one, and would be asked in another way than it knows",
            do="remove `model.template`",
        )
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token is None:
        raise ModelError("the base model's tokenizer has no end token", why="no answer would ever end", do="set `eos_token` in its files")
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id and tokenizer.bos_token is not None
    (folder / TEMPLATE_FILE).write_text(("{{ bos_token }}" if begins else "") + _BODY, encoding="utf-8")
