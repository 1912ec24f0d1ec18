"""Loads the base model's tokenizer, without the libraries that only training needs. Next: `chat.py`, which renders with it."""

from pathlib import Path
from typing import Any

from training.errors import ModelError


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer, with a padding token.

    Raises:
        ModelError: it cannot be read, or names neither a padding nor an end token.
    """
    from transformers import AutoTokenizer  # with torch, seconds: `tunegate data check` mostly does without

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {error}", do="delete that folder; the next run makes it again"
        ) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer in {folder} has neither a padding nor an end token", do="set `eos_token` in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
