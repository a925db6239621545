"""`check` for machines: what was found, or the mistakes, and nothing else on stdout."""

import json


def test_what_was_found(zoo_command):
    code, out, _ = zoo_command("check", "model=vib", "data=digits", "--json")
    found = json.loads(out)
    assert code == 0
    assert found | {"concepts": len(found["concepts"])} == {
        "mistakes": [], "model": "vib", "data": "digits", "outputs": 10, "concepts": 12, "image": [1, 8, 8]
    }  # fmt: skip


def test_every_mistake(zoo_command):
    code, out, lines = zoo_command("check", "model=cbn", "task.lr=abc", "--json")
    assert code == 2
    assert json.loads(out) == {"mistakes": ["unknown model 'cbn': did you mean cbm?", "task.lr=abc: expected a number"]}
    assert not lines
