"""Lets `python -m streams.command_line` be the command where its script is not on the path."""

from streams.command_line import main

main()
