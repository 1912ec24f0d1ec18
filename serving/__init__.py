"""Keeps one champion answering: releases, vLLM slots, gateway. Knows nothing of monitoring, Prefect or torch."""
