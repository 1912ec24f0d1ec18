"""The line, told by Prefect flows and a command. Start reading at `flows/pipeline.py`."""
