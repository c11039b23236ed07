"""Runs a project's tests with its own pytest, and says what that proved.

The verdict rests on pytest's exit code and JUnit report; a plugin of ours (`recorder`) adds what those lack:
exact node ids, exceptions and places, which test is running, and how many there were to run. Where the two
disagree, nothing is called a pass. Tests are code: one that sets out to forge its own result can, since it
runs in the same process; what tests print or assert is never read as anything but text.
"""
