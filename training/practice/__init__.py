"""What good practice asks of a training run: traps that are caught, when to stop, what to show. Start with README.md."""
