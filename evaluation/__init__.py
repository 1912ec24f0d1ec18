"""Judges a model over the API of the server that will take its traffic. Knows nothing of serving, Prefect or the GPU stack."""
