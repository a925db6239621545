"""The link's quantiser and what it weighs on the wire."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.models.split.quantizer import AffineQuantizer, dequantize, quantize, quantize_tensor
from zoo.models.split.wire import HEADER_BYTES, code_bytes, compression, jpeg_bytes, pack, unpack


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 8),
    offset=st.floats(-1e3, 1e3),
    spread=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**16),
)
def test_error_is_at_most_half_a_step_wherever_the_values_lie(bits, offset, spread, seed):
    z = offset + spread * torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(seed))
    message = quantize(z, num_bits=bits)
    error = (dequantize(*message) - z).abs().flatten(1).amax(1)
    assert message.code.dtype == torch.uint8
    assert int(message.code.max()) < 2**bits
    rounding = 4 * torch.finfo(z.dtype).eps * z.abs().max()
    assert (error <= message.scale / 2 + rounding).all()


@pytest.mark.parametrize("value", [0.0, -3.5, 7e-20, 1e6])
def test_a_constant_image_decodes_to_itself(value):
    z = torch.full((2, 1, 3, 3), value)
    assert torch.allclose(dequantize(*quantize(z)), z, rtol=1e-6, atol=0)


def test_an_image_is_coded_alike_in_every_batch():
    z = torch.randn(4, 3, 5, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(-1, 1, 1, 1)
    together, alone = quantize(z), quantize(z[2:3])
    assert torch.equal(together.code[2:3], alone.code)
    assert torch.equal(dequantize(*together)[2:3], dequantize(*alone))


def test_released_form_errs_by_a_step_at_most_where_values_straddle_zero_and_saturates_elsewhere():
    z = torch.randn(2, 3, 9, 9)
    message = quantize_tensor(z)
    assert ((dequantize(*message) - z).abs() <= message.scale * 1.001).all()
    offset = 10 + torch.rand(2, 3, 9, 9)
    assert dequantize(*quantize_tensor(offset)).max() <= 1.001


def test_straight_through_has_the_decoded_value_and_the_gradient_of_the_identity():
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    quantizer = AffineQuantizer(num_bits=4)
    decoded = quantizer.straight_through(z)
    torch.testing.assert_close(decoded, quantizer.dequantize(*quantizer(z)))
    weight = torch.randn_like(z)
    (gradient,) = torch.autograd.grad((decoded * weight).sum(), z)
    assert torch.equal(gradient, weight)


@pytest.mark.parametrize("arguments", [{"num_bits": 0}, {"num_bits": 9}, {"per": "channel"}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=r"bits|choose"):
        AffineQuantizer(**arguments)


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(1, 8), shape=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 999))
def test_packing_takes_the_bits_and_loses_nothing(bits, shape, seed):
    code = torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    data = pack(code, bits)
    assert len(data) == -(-code.numel() * bits // 8)
    assert torch.equal(unpack(data, shape, bits), code)


def test_unpacking_refuses_another_length():
    with pytest.raises(ValueError, match="do not hold"):
        unpack(b"abc", (4,), 8)


def test_bytes_are_counted_with_the_header_and_zlib_is_never_larger():
    code = torch.stack([torch.randint(0, 256, (3, 9, 9)), torch.zeros(3, 9, 9, dtype=torch.long)]).to(torch.uint8)
    sizes = code_bytes(code)
    assert sizes["tensor"].tolist() == [243 + HEADER_BYTES] * 2
    assert sizes["zlib"][0] == 243 + HEADER_BYTES
    assert sizes["zlib"][1] < 40


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_the_file_that_pillow_writes(channels):
    ramp = torch.linspace(0, 255, 48).to(torch.uint8).expand(channels, 40, 48)
    sizes = [jpeg_bytes(ramp, quality) for quality in (30, 60, 95)]
    assert sizes == sorted(sizes)
    buffer = io.BytesIO()
    pixels = ramp.permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze()).save(buffer, "JPEG", quality=60)
    assert sizes[1] == len(buffer.getvalue())
    with pytest.raises(ValueError, match="uint8"):
        jpeg_bytes(ramp.float(), 60)


def test_compression_names_every_reference():
    image, code = torch.randint(0, 256, (3, 64, 64)).to(torch.uint8), torch.zeros(3, 9, 9, dtype=torch.uint8)
    report = compression(image, code, qualities=(90,))
    assert report["bytes"] == 251
    assert report["raw_bytes"] == 3 * 64 * 64
    assert report["saved_float32"] == pytest.approx(1 - 251 / 972)
    assert report["saved_jpeg90"] == pytest.approx(1 - 251 / report["jpeg90_bytes"])
