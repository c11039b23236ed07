"""Measurements beside the raw client and FastStream, all in one run: `python -m benchmarks`."""
