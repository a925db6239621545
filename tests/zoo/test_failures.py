"""Which exceptions are a user's mistake: those of the zoo's own code, also through loaders and Hydra."""

import pytest

from zoo.failures import describe


def caught(function) -> BaseException:
    with pytest.raises(Exception) as info:
        function()
    return info.value


def test_a_long_message_is_cut():
    lines, code = describe(RuntimeError("x" * 2000), "train")
    assert code == 1
    assert len(lines) == 1
    assert len(lines[0]) < 620


def test_a_library_s_value_error_is_a_failure():
    import base64

    lines, code = describe(caught(lambda: base64.b64decode("a")), "train")
    assert code == 1
    assert lines[0].startswith("zoo train failed: Error: ")


def test_a_mistake_found_in_a_loader_s_worker():
    data = pytest.importorskip("torch").utils.data
    import zoo.data.contract

    class Raises(data.Dataset):
        """Raises from a frame that lies, by its file name, in data/contract.py."""

        def __len__(self):
            return 2

        def __getitem__(self, index):
            exec(compile("raise ValueError('a.png: no image')", zoo.data.contract.__file__, "exec"))

    loader = data.DataLoader(Raises(), num_workers=1)
    assert describe(caught(lambda: next(iter(loader))), "train") == (["error: a.png: no image"], 2)


def test_a_constructor_s_mistake_below_hydra():
    from hydra.utils import instantiate

    node = {"_target_": "zoo.readme_table.between_markers", "text": "no markers"}
    lines, code = describe(caught(lambda: instantiate(node)), "train")
    assert code == 2
    assert lines[0].startswith("error: no table of models")


def test_a_failure_before_there_is_a_verb():
    assert describe(RuntimeError("gone"), "")[0] == [
        "zoo failed: RuntimeError: gone (run again with --debug for the traceback)"
    ]
