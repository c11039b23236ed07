"""Bad records are bad, each for itself, and the same for the same seed."""

import json

from .bad_records import bad_records


def test_a_seed_gives_the_same_records_and_another_one_does_not() -> None:
    one, again, other = (list(bad_records("researcher", seed, 300, 10)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_none_of_them_is_a_task_and_no_two_have_the_same_id() -> None:
    letters = list(bad_records("researcher", 3, 2_000, 10))
    assert {letter.expect for letter in letters} == {"dead"}
    ids = [value for letter in letters for name, value in letter.headers if name == "ce_id" and value]
    texts = [value for value in ids if value.decode(errors="ignore").encode() == value]
    assert len(set(texts)) == len(texts) > 1_000
    others = set(ids) - set(texts)
    assert 0 < len(others) < len(ids) - len(texts)
    for letter in letters:
        try:
            value = json.loads(letter.value or b"")
        except (ValueError, RecursionError):
            continue
        assert not (isinstance(value, dict) and "input" in value)
