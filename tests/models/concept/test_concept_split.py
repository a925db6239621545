"""Concept split: head and tail compose, bytes are real, the rate is the code's entropy and its price shortens codes."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zoo.models.backbone import MLP
from zoo.models.concept.concept_split import ConceptSplit
from zoo.models.concept.concept_wire import pack, pack_sparse, unpack, unpack_sparse
from zoo.models.contract import Intervention

CONCEPTS = 6


def build(**arguments) -> ConceptSplit:
    torch.manual_seed(0)
    names = tuple(f"c{k}" for k in range(CONCEPTS))
    backbone = MLP(in_channels=5, hidden=(16,))
    return ConceptSplit(backbone=backbone, num_outputs=3, concept_names=names, **arguments)


def batch(rows=40) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 5, generator=generator)
    concepts = torch.cat([(x > 1).float(), (x[:, :1] + x[:, 1:2] > 1).float()], dim=1)
    return {"image": x, "concepts": concepts, "label": (x[:, 0] > 1).long() + (x[:, 1] > 1).long()}


def train(model, *, steps=60, lr=0.03):
    optimizer, data = torch.optim.Adam(model.parameters(), lr), batch()
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(model.train()(data["image"]), data)["loss"].backward()
        optimizer.step()
    model.finish_stage(model.stages()[-1], SimpleNamespace(train_dataloader=lambda: [data]))
    return model.eval()


@pytest.mark.parametrize("bits", [1, 3, 8, [1, 2, 3, 4, 5, 8]])
def test_head_and_tail_make_up_the_model(bits):
    model, x = build(bits=bits).eval(), torch.randn(9, 5)
    output, message = model(x), model.head(x)
    assert message.code.dtype == torch.uint8
    assert torch.equal(message.code, output.code)
    assert torch.equal(model.tail(*message), output.prediction)
    assert (message.code <= model.top).all()
    assert torch.equal(model.forward_features(model.backbone(x)).prediction, output.prediction)
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"backbone", "concept_layer", "label_layer", "top", "level_logits", "concept_weights"}


def test_the_error_of_a_score_is_at_most_half_a_step():
    model, x = build(bits=3).eval(), torch.randn(50, 5)
    output = model(x)
    error = (output.concepts - output.extras["concept_logits"].sigmoid()).abs()
    assert error.max() <= 0.5 / 7 + 1e-6


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 255)), min_size=1, max_size=40))
def test_what_is_packed_is_unpacked(rows):
    bits = [width for width, _ in rows]
    code = torch.tensor([value % 2**width for width, value in rows], dtype=torch.uint8)
    packed, sparse = pack(code, bits), pack_sparse(code, bits)
    assert len(packed) == -(-sum(bits) // 8)
    assert torch.equal(unpack(packed, bits), code)
    assert torch.equal(unpack_sparse(sparse, bits), code)


def test_bytes_that_hold_other_codes_are_refused():
    with pytest.raises(ValueError, match="do not hold codes of 9 bits"):
        unpack(b"x", [3, 3, 3])
    with pytest.raises(ValueError, match="do not hold sparse codes"):
        unpack_sparse(b"xyz", [1, 1])


def test_bytes_are_those_of_the_packed_code():
    model = build(bits=[1, 2, 3, 4, 5, 8]).eval()
    output = model(torch.randn(4, 5))
    sizes = model.code_bytes(output)
    assert sizes["tensor"].tolist() == [3] * 4
    assert sizes["sparse"].tolist() == [len(pack_sparse(code, model.bits)) for code in output.code]


def test_the_rate_of_a_code_is_its_length_under_the_table():
    model = build(bits=[1, 2, 3, 2, 1, 4]).eval()
    nn.init.normal_(model.level_logits)
    output = model(torch.randn(7, 5))
    for code, rate in zip(output.code.long(), output.extras["rate"]):
        by_hand = sum(
            -torch.log2(model.level_logits[k, : 2 ** model.bits[k]].softmax(0))[code[k]] for k in range(CONCEPTS)
        )
        assert rate.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_fitted_tables_give_the_entropy_of_the_codes():
    model = train(build(bits=2), steps=20)
    data = batch(40)
    output = model(data["image"])
    entropy = 0.0
    for column in output.code.T:
        share = torch.bincount(column.long(), minlength=4) / len(column)
        entropy -= float((share * share.clamp(min=1e-9).log2()).sum())
    assert entropy <= output.extras["rate"].mean().item() <= entropy + 0.5 * CONCEPTS


def test_the_rate_is_linear_between_levels_and_pushes_towards_the_cheaper():
    model = build(bits=1)
    model.level_logits.data[:, 0] = 3.0
    ends = [model.rate(torch.full((1, CONCEPTS), value)) for value in (0.0, 1.0)]
    scores = torch.full((1, CONCEPTS), 0.25, requires_grad=True)
    middle = model.rate(scores)
    torch.testing.assert_close(middle, 0.75 * ends[0] + 0.25 * ends[1])
    assert (torch.autograd.grad(middle, scores)[0] > 0).all()


def test_a_price_on_bits_shortens_codes():
    free, priced = train(build(bits=3, rate_weight=0.0)), train(build(bits=3, rate_weight=2.0))
    data = batch()
    assert priced(data["image"]).extras["rate"].mean() < 0.7 * free(data["image"]).extras["rate"].mean()


def test_it_learns_and_every_parameter_has_a_gradient():
    model, data = build(), batch()
    model.loss(model.train()(data["image"]), data)["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.zero_grad()
    trained = train(model, steps=120)
    assert (trained(data["image"]).prediction.argmax(1) == data["label"]).float().mean() > 0.85


def test_corrections_happen_on_the_server():
    model, x = build().eval(), torch.randn(4, 5)
    none, values = torch.zeros(CONCEPTS, dtype=torch.bool), torch.ones(CONCEPTS)
    plain, empty = model(x), model(x, Intervention(none, values))
    assert torch.equal(plain.prediction, empty.prediction)
    corrected = model(x, Intervention(~none, values))
    assert torch.equal(corrected.code, plain.code)
    assert torch.equal(corrected.concepts, plain.concepts)
    torch.testing.assert_close(corrected.prediction, model.tail(model.top.expand(4, -1)))
    total = model.contributions(plain).sum(1) + model.label_layer.bias
    torch.testing.assert_close(total, plain.prediction)


@pytest.mark.parametrize("bits", [0, 9, [1, 2]])
def test_bits_that_do_not_fit_are_refused(bits):
    with pytest.raises(ValueError, match="give one number from 1 to 8, or one for each of the 6 concepts"):
        build(bits=bits)


def test_what_left_the_device_is_told_by_name():
    model = build(bits=[1, 2, 3, 2, 1, 4]).eval()
    output = model(torch.randn(1, 5))
    sent = model.sent(output)
    assert torch.equal(unpack(bytes.fromhex(sent["bytes"]), model.bits), output.code[0])
    assert list(sent["levels"]) == list(model.concept_names)
    assert [level for level, _ in sent["levels"].values()] == output.code[0].tolist()
    assert [top for _, top in sent["levels"].values()] == [1, 3, 7, 3, 1, 15]
    assert (sent["size"], sent["size_sparse"]) == (2, len(pack_sparse(output.code[0], model.bits)))
