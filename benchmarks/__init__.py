"""One file per question, each runnable alone: `python -m benchmarks.ask --help`."""
