"""The environment that a training or merging process needs, set by whoever starts it. Knows nothing of torch. Next: `builders.py`."""


def stage_environment(cores: int) -> dict[str, str]:
    """Environment of a process that trains or merges; it must be there before torch is imported.

    Threads that wait passively: with OpenMP's default they spin at every barrier, and one busy neighbour on the same cores
    slows training tenfold (14 instead of 90 tokens/s beside a running server).
    """
    return {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
