"""What a training says while it goes on; no line where nothing is trained. Next: `queries_line.py`, what the stages took and came to."""

from monitoring.queries import Query

_BY = "public_name, stage"
_LEGEND = "{{public_name}} {{stage}}"

DONE = Query(
    "training_done",
    f"max by ({_BY}) (tunegate_training_step / tunegate_training_steps)",
    "percentunit",
    _LEGEND,
    "Share of the steps that are made",
)
LOSS = Query("training_loss", f"max by ({_BY}) (tunegate_training_loss)", "short", _LEGEND, "Loss of the last step, nats per answer token")
HELD_OUT_LOSS = Query(
    "training_held_out_loss",
    f"max by ({_BY}) (tunegate_training_held_out_loss)",
    "short",
    f"{_LEGEND} held out",
    "The same on the held-back rows; it rising while the other falls is over-fitting",
)
LEARNING_RATE = Query(
    "training_learning_rate", f"max by ({_BY}) (tunegate_training_learning_rate)", "short", _LEGEND, "Learning rate of the last step"
)
SPEED = Query(
    "training_speed", f"max by ({_BY}) (tunegate_training_tokens_per_second)", "short", _LEGEND, "Tokens a second, padding not counted"
)
MEMORY = Query(
    "training_memory",
    f"max by ({_BY}) (tunegate_training_memory_bytes)",
    "bytes",
    _LEGEND,
    "Peak of the GPU's memory, or memory of the process where there is no GPU",
)
