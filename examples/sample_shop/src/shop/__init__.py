"""The ordering core of a small shop."""
