"""The harness itself: what it compares, and what it refuses."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from tests.golden.cases import ADAPTERS, REPEATED, Arguments, Case, adapter, read_case, run

SPEC = {"system": "s", "case": "c", "target": "t", "kind": "function", "dtype": "float32", "atol": 0.1, "rtol": 0}


def case_of(tmp_path, tensors: dict | None = None, **spec) -> Case:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(SPEC | spec))
    if tensors is not None:
        save_file({key: torch.as_tensor(value) for key, value in tensors.items()}, path.with_suffix(".safetensors"))
    return read_case(path)


def test_each_tensor_has_its_own_tolerance(tmp_path):
    tensors = {"output/loose": [1.0], "output/tight": [1.0], "output/count": [3], "output/code": [3]}
    case = case_of(tmp_path, tensors, tolerances={"output/tight": [0.01, 0], "output/code": [1, 0]})
    right = {"output/loose": 1.05, "output/tight": 1.005, "output/count": 3, "output/code": 4}
    case.check(right)
    for key, value in {"output/loose": 1.2, "output/tight": 1.05, "output/count": 4, "output/code": 5}.items():
        with pytest.raises(AssertionError, match=f"{key}: 1 of 1"):
            case.check(right | {key: value})


def test_gradients_of_a_training_step_have_the_stated_tolerance(tmp_path):
    case = case_of(tmp_path, {"grad/w": [1e6, 0.0]}, kind="training_step")
    with pytest.raises(AssertionError, match="1 of 2 beyond"):
        case.check({"grad/w": torch.tensor([1e6, 0.2])})


def test_scalars_have_their_own_tolerance(tmp_path):
    case = case_of(tmp_path, {}, expected={"near": 1.0, "table": {"x": [1.0]}}, tolerances={"expected/near": [0, 0.5]})
    case.check({"expected/near": 1.4, "expected/table": {"x": [1.05]}})
    with pytest.raises(AssertionError, match=r"expected/table: \.x\[0\] is 1.4"):
        case.check({"expected/near": 1.4, "expected/table": {"x": [1.4]}})


def test_infinities_and_nan_have_to_stand_where_they_are_expected(tmp_path):
    case = case_of(tmp_path, {"output/y": [1.0, -math.inf, math.nan]})
    case.check({"output/y": torch.tensor([1.0, -math.inf, math.nan])})
    for wrong in ([1.0, math.inf, math.nan], [1.0, -math.inf, 0.0], [math.nan, -math.inf, math.nan]):
        with pytest.raises(AssertionError, match="output/y"):
            case.check({"output/y": torch.tensor(wrong)})


def test_what_is_missing_or_of_another_shape_is_named(tmp_path):
    case = case_of(tmp_path, {"output/a": [[1.0, 2.0]], "grad/b": [1.0]}, expected={"n": 1})
    with pytest.raises(AssertionError) as problems:
        case.check({"output/a": torch.tensor([1.0, 2.0])})
    assert "output/a: shape (2,), expected (1, 2)" in str(problems.value)
    assert "grad/b: the adapter returned nothing" in str(problems.value)
    assert "expected/n: the adapter returned nothing" in str(problems.value)


def test_a_case_without_tensors_or_without_results_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        case_of(tmp_path).check({})
    with pytest.raises(AssertionError, match="nothing to compare"):
        case_of(tmp_path, {"input/x": [1.0]}).check({})
    assert case_of(tmp_path, kind="table", expected={"n": 1}).check({"expected/n": 1}) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"system": "s"}'])
def test_a_file_that_is_no_case_is_named(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=r"c\.json is no golden case"):
        read_case(tmp_path / "c.json")


def test_an_argument_that_nobody_looks_at_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(ADAPTERS, ("s", "t"), None)
    monkeypatch.setitem(REPEATED, ("s", "t"), frozenset({"batch"}))

    def identity(case: Case) -> dict:
        assert torch.get_default_dtype() == torch.float64
        return {"output/y": case.input["x"] * case.arguments["factor"] + case.arguments.get("shift", 0)}

    tensors, arguments = {"input/x": [2.0], "output/y": [6.0]}, {"batch": 1, "factor": 3}
    run(case_of(tmp_path, tensors, dtype="float64", arguments=arguments), identity)
    further = case_of(tmp_path, tensors, dtype="float64", arguments=arguments | {"window": 2, "bias": True})
    with pytest.warns(UserWarning, match="does not know the arguments bias, window"):
        run(further, identity)
    assert torch.get_default_dtype() == torch.float32


def test_two_adapters_of_one_target_are_refused(monkeypatch):
    monkeypatch.setitem(ADAPTERS, ("s", "t"), None)
    with pytest.raises(ValueError, match="two adapters"):
        adapter("s", "t")(lambda case: {})


def test_arguments_remember_what_was_read():
    arguments = Arguments({"a": 1, "b": 2})
    assert (arguments["a"], arguments.get("c", 3), arguments.read) == (1, 3, {"a", "c"})
