import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from camoxpert_nb.data.augment import (
    LARGEST_ANGLE,
    SMALLEST_CROP,
    K,
    _affine,
    _colour,
    augment_batch,
    shrunk,
    to_float,
)

SIZE = 64
STILL = [0.9, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]  # uniforms that change nothing
FLIP, CROP, RIGHT, DOWN, TURN, BRIGHTNESS, CONTRAST, SATURATION = range(K)


def uniforms(count, **changes):
    rows = torch.tensor([STILL] * count)
    for name, value in changes.items():
        rows[:, globals()[name]] = value
    return rows


def smooth_batch(count=6, dtype=torch.uint8):
    """Images without hard edges, and blobs as masks."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 4, 7, 7, generator=generator)
    fine = functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    image, mask = fine[:, :3], (fine[:, 3:] > 0.5).to(torch.uint8)
    return ((image * 255).round().to(torch.uint8) if dtype == torch.uint8 else image), mask


def chance(count, seed=0):
    return torch.rand(count, K, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[torch.uint8, torch.float32], ids=["bytes", "floats"])
def batch(request):
    return smooth_batch(dtype=request.param)


def test_result_has_the_promised_form(batch):
    image, mask = augment_batch(*batch, chance(6))
    assert image.shape == (6, 3, SIZE, SIZE)
    assert mask.shape == (6, 1, SIZE, SIZE)
    assert image.dtype == mask.dtype == torch.float32
    assert image.is_contiguous()
    assert mask.is_contiguous()
    assert 0 <= image.min() < image.max() <= 1
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_inputs_stay_as_they_are_and_the_same_numbers_give_the_same_bits(batch):
    copies = [tensor.clone() for tensor in batch]
    uniform = chance(6)
    first, again = augment_batch(*batch, uniform), augment_batch(*batch, uniform)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(copies, batch, strict=True))
    assert torch.equal(uniform, chance(6))


def test_result_does_not_depend_on_the_rest_of_the_batch(batch):
    uniform = chance(6)
    whole = augment_batch(*batch, uniform)
    for part in (slice(0, 1), slice(2, 5)):
        alone = augment_batch(batch[0][part], batch[1][part], uniform[part])
        assert all(torch.equal(a[part], b) for a, b in zip(whole, alone, strict=True))


def test_other_numbers_give_other_images(batch):
    same = [tensor[:1].expand(6, -1, -1, -1).contiguous() for tensor in batch]
    image, _ = augment_batch(*same, chance(6))
    differences = [(image[i] - image[j]).abs().mean() for i in range(6) for j in range(i)]
    assert min(differences) > 0.01


def test_image_and_mask_move_together():
    mask = smooth_batch(16)[1]
    image = (mask * 200).expand(-1, 3, -1, -1).contiguous()
    for kind in (image, image / 255):
        uniform = chance(16)
        uniform[:, BRIGHTNESS:] = 0.5
        moved_image, moved_mask = augment_batch(kind, mask, uniform)
        apart = (moved_image[:, :1] * 255 > 100).float() != moved_mask
        assert apart.float().mean() < 0.002  # ties on the border
        assert (moved_mask != mask).float().mean() > 0.05  # and it did move


def test_bytes_and_floats_agree():
    image, mask = smooth_batch(32)
    uniform = chance(32)
    from_bytes = augment_batch(image, mask, uniform)
    from_floats = augment_batch(image / 255, mask, uniform)
    difference = (from_bytes[0] - from_floats[0]).abs() * 255
    assert difference.max() < 3
    assert difference.mean() < 0.6
    assert (from_bytes[1] != from_floats[1]).float().mean() < 0.005


def test_strength_nought_and_neutral_numbers_change_nothing(batch):
    plain = to_float(*batch)
    for result in (
        augment_batch(*batch, chance(6), strength=0),
        augment_batch(*batch, uniforms(6)),
    ):
        assert torch.allclose(result[0], plain[0], atol=1e-5)
        assert torch.equal(result[1], plain[1])


def test_strength_scales_how_far_images_change():
    image, mask = smooth_batch(64)
    uniform = chance(64)
    uniform[:, FLIP] = 0.9
    plain, _ = to_float(image, mask)
    change = [
        (augment_batch(image, mask, uniform, s)[0] - plain).abs().mean() for s in (0.1, 0.4, 1.0)
    ]
    assert change[0] < change[1] < change[2]


@pytest.mark.parametrize(("strength", "share"), [(1.0, 0.5), (0.4, 0.2)])
def test_flip_mirrors_the_promised_share(batch, strength, share):
    for number, flipped in ((share - 0.01, True), (share + 0.01, False)):
        image, mask = augment_batch(*batch, uniforms(6, FLIP=number), strength)
        expected = [tensor.flip(3) if flipped else tensor for tensor in to_float(*batch)]
        assert torch.allclose(image, expected[0], atol=1e-5)
        assert torch.equal(mask, expected[1])


def test_a_flipped_image_is_the_mirror_of_the_one_not_flipped(batch):
    kept, flipped = chance(6), chance(6)
    kept[:, FLIP], flipped[:, FLIP] = 0.9, 0.1
    straight, mirrored = augment_batch(*batch, kept), augment_batch(*batch, flipped)
    assert (straight[0].flip(3) - mirrored[0]).abs().max() < 0.02
    assert (straight[1].flip(3) != mirrored[1]).float().mean() < 0.005


def test_crop_is_the_promised_part_of_the_image(batch):
    last = 1 - 1e-6
    image, mask = augment_batch(*batch, uniforms(6, CROP=last, RIGHT=last, DOWN=0.0))
    side = SMALLEST_CROP * SIZE  # top right corner, enlarged
    centre = (np.arange(SIZE) + 0.5) * SMALLEST_CROP
    rows, columns = centre.astype(int), (SIZE - side + centre).astype(int)
    plain = to_float(*batch)
    assert (image - plain[0][:, :, rows][..., columns]).abs().mean() < 0.02
    assert (mask - plain[1][:, :, rows][..., columns]).abs().mean() < 0.03


@pytest.mark.parametrize(("number", "sign"), [(0.0, -1), (1 - 1e-6, 1)])
def test_rotation_is_by_the_promised_angle(batch, number, sign):
    dot = torch.zeros_like(batch[1])
    dot[:, :, 30:34, 50:54] = 1  # 20 pixels to the right of the centre
    mask = augment_batch(batch[0], dot, uniforms(6, TURN=number))[1][0, 0]
    y, x = mask.nonzero().float().mean(0) + 0.5 - SIZE / 2
    angle = math.degrees(math.atan2(float(y), float(x)))
    assert angle == pytest.approx(-sign * LARGEST_ANGLE, abs=2)
    assert math.hypot(float(y), float(x)) == pytest.approx(20, abs=0.7)
    assert int(mask.sum()) == pytest.approx(16, abs=5)


def test_most_images_stay_nearly_upright(batch):
    dot = torch.zeros(400, 1, SIZE, SIZE, dtype=torch.uint8)
    dot[:, :, 30:34, 50:54] = 1
    uniform = uniforms(400)
    uniform[:, TURN] = torch.linspace(0, 1 - 1e-6, 400)
    moved = augment_batch(dot.expand(-1, 3, -1, -1).contiguous(), dot, uniform)[1]
    rows = torch.arange(SIZE)[:, None] + 0.5 - SIZE / 2
    heights = (moved[:, 0] * rows).sum((1, 2)) / moved[:, 0].sum((1, 2))
    beyond_15_degrees = heights.abs() > 20 * math.sin(math.radians(15))
    assert 0.15 < beyond_15_degrees.float().mean() < 0.27


def test_beyond_the_edge_the_image_is_mirrored(batch):
    grey = torch.full_like(batch[0], 100 if batch[0].dtype == torch.uint8 else 100 / 255)
    full = torch.ones_like(batch[1])
    image, mask = augment_batch(grey, full, uniforms(6, TURN=0.0))
    assert torch.allclose(image, torch.tensor(100 / 255), atol=1e-5)  # no black corners
    assert mask.min() == 1


def test_colour_is_brightness_then_contrast_then_saturation(batch):
    uniform = uniforms(6, BRIGHTNESS=1 - 1e-6, CONTRAST=0.0, SATURATION=0.0)
    image, mask = augment_batch(*batch, uniform)
    plain, plain_mask = to_float(*batch)
    expected = (plain * 1.2 - 0.5) * 0.8 + 0.5
    grey = (expected * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    expected = (grey + 0.7 * (expected - grey)).clamp(0, 1)
    assert (image - expected).abs().max() * 255 < 2
    assert torch.equal(mask, plain_mask)


def test_thin_curves_survive():
    """Lines of two pixels stay whole and of their area when they are turned and enlarged."""
    mask = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    mask[:, :, 31:33, 12:52] = 1
    image = mask.expand(-1, 3, -1, -1).contiguous()
    for number in (0.05, 0.2, 0.35, 0.8, 0.95):
        _, moved = augment_batch(image, mask, uniforms(1, TURN=number))
        columns = moved[0, 0].any(0).nonzero().ravel()
        assert int(columns.diff().max()) == 1
        assert int(moved.sum()) == pytest.approx(80, rel=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_makes_no_difference():
    image, mask = smooth_batch()
    expected = augment_batch(image / 255, mask, chance(6))
    found = augment_batch(image.cuda(), mask.cuda(), chance(6).cuda())
    assert found[0].is_cuda
    assert torch.allclose(found[0].cpu(), expected[0], atol=1e-3)
    assert (found[1].cpu() != expected[1]).float().mean() < 0.001


def test_pixels_that_count_nowhere_move_with_the_mask() -> None:
    """The second channel goes where the first would, as bytes and as floats."""
    torch.manual_seed(3)
    image = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    mask = torch.zeros(4, 1, 48, 48, dtype=torch.uint8)
    mask[:, :, 8:30, 12:40] = 1
    uniform = torch.rand(4, K)
    both = torch.cat([mask, mask], 1)
    moved_image, moved = augment_batch(image, both, uniform)
    alone_image, alone = augment_batch(image, mask, uniform)
    assert torch.equal(moved_image, alone_image) and torch.equal(moved[:, :1], alone)
    assert torch.equal(moved[:, :1], moved[:, 1:]) and moved.is_contiguous()
    _, floats = augment_batch(image.float() / 255, both.float(), uniform)
    assert floats.shape == moved.shape and torch.equal(floats[:, :1], floats[:, 1:])
    assert (floats != moved).float().mean() < 0.02


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1])
def test_each_change_goes_as_far_as_the_strength_says(strength: float) -> None:
    """All chances at their highest but for the flip: the map from result to source, by hand."""
    row = torch.ones(1, K)
    ((first, second),) = _affine(row, strength).tolist()
    side = 1 - 0.3 * strength
    angle = math.radians(30 * strength)
    cosine, sine = side * math.cos(angle), side * math.sin(angle)
    assert first == pytest.approx([cosine, -sine, 1 - side], abs=1e-6)
    assert second == pytest.approx([sine, cosine, 1 - side], abs=1e-6)
    row[:, FLIP], row[:, RIGHT], row[:, DOWN] = 0.0, 0.0, 0.75  # mirrored, left, half-way down
    ((first, second),) = _affine(row, strength).tolist()
    assert first == pytest.approx([-cosine, -sine, side - 1], abs=1e-6)
    assert second == pytest.approx([-sine, cosine, (1 - side) / 2], abs=1e-6)
    (own, by_grey, offset) = _colour(torch.ones(1, K), strength)[0].tolist()
    gain, saturation = (1 + 0.2 * strength) ** 2, 1 + 0.3 * strength
    assert own == pytest.approx(gain * saturation, abs=1e-6)
    assert by_grey == pytest.approx(gain * (1 - saturation), abs=1e-6)
    assert offset == pytest.approx(-0.1 * strength, abs=1e-6)


def test_colour_changes_have_their_own_chances_and_spans() -> None:
    neutral = torch.full((1, K), 0.5)
    for column, expected in (
        (BRIGHTNESS, (0.8, 0.0, 0.0)),
        (CONTRAST, (0.8, 0.0, 0.1)),
        (SATURATION, (0.7, 0.3, 0.0)),
    ):
        row = neutral.clone()
        row[:, column] = 0
        assert _colour(row, 1.0)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_both_channels_of_a_mask_are_mirrored_beyond_the_edge(batch) -> None:
    """A picture that is all object and all ignored stays so in its corners."""
    full = torch.ones(6, 2, SIZE, SIZE, dtype=batch[1].dtype)
    _, mask = augment_batch(batch[0], full, uniforms(6, TURN=0.0))
    assert mask.min() == 1 and mask.shape == full.shape


def test_a_mask_is_binary_whatever_moves_it(batch) -> None:
    for channels in (1, 2):
        mask = batch[1].repeat(1, channels, 1, 1)
        _, moved = augment_batch(batch[0], mask, chance(6, seed=8))
        assert set(moved.unique().tolist()) == {0.0, 1.0}


def test_a_shrunk_image_keeps_its_light_and_its_mask_what_is_mostly_object() -> None:
    """A grid finer than the pixels that are left becomes its mean, grey, and no stripes."""
    grid = torch.zeros(1, 3, 12, 12)
    grid[..., ::2, ::2] = grid[..., 1::2, 1::2] = 1
    mask = torch.zeros(1, 2, 12, 12)
    mask[:, 0, :, :7] = 1  # a third of the third column, no more, is beyond the sixth
    mask[:, 1, :6] = 1
    image, both = shrunk(grid, mask, 4)
    assert image.shape == (1, 3, 4, 4) and both.shape == (1, 2, 4, 4)
    assert (image - 0.5).abs().max() < 0.06
    assert both[0, 0].tolist() == [[1, 1, 0, 0]] * 4
    assert both[0, 1].tolist() == [[1] * 4] * 2 + [[0] * 4] * 2
    assert both.dtype == mask.dtype


def test_a_shrunk_image_stays_in_its_place() -> None:
    slope = torch.linspace(0, 1, 64).expand(2, 3, 64, 64).contiguous()
    image, _ = shrunk(slope, torch.zeros(2, 1, 64, 64), 16)
    centres = (torch.arange(16) * 4 + 1.5) / 63
    assert (image - centres)[..., 1:-1].abs().max() < 1e-5  # at the edges part of the mean is cut
    assert image.transpose(2, 3)[..., 1:].diff(dim=-1).abs().max() < 1e-5
