"""Checks whose verdict a program computes, so that people and models only have to explain it.

A report says what was found, what was not checked and what ended the check; its JSON Schema is in
`schemas/reports/`. No check ever writes to what it looks at; tests that are run may, and pytest its cache.
"""
