"""Numbers about the text of an answer, alone and against its reference; where a reference tool exists, its numbers.

Knows nothing of servers, prompts, rules or the gate. Next: `text_scores.py`, which puts them together.
"""
