"""Augmentation of a whole batch on the batch's device, as a pure function.

All chance comes in as uniform numbers, one row an image, so the result depends on the numbers
alone: not on workers, ranks, resume or the place in the batch. Flip, crop and rotation are one
affine map, sampled once for image and mask together, so nothing is blurred twice and the two
cannot drift apart. Brightness, contrast and saturation are one weighted sum.

The mask is sampled bilinearly and cut at one half, not by nearest neighbour: on drawn curves of
1, 2 and 5 pixels, rotated and enlarged, its IoU with the exact mask is 0.70, 0.84 and 0.93
against 0.65, 0.79 and 0.91, and it is just as binary.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

K = 8  # uniforms an image: flip, crop size, crop x, crop y, angle, brightness, contrast, saturation

SMALLEST_CROP = 0.7  # side of the crop, as a share of the image's side
LARGEST_ANGLE = 30.0  # degrees
BRIGHTNESS = 0.2  # largest change of each factor from 1
CONTRAST = 0.2
SATURATION = 0.3
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as Pillow's grey


def augment_batch(
    image: Tensor, mask: Tensor, uniform: Tensor, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Flip, crop, rotate and recolour a batch; the same uniforms give the same result.

    image (B, 3, S, S) uint8 0...255 or float 0...1, mask (B, 1, S, S) of 0 and 1 (or two channels,
    the second 1 where pixels count nowhere), uniform (B, K) in [0, 1). `strength` in 0...1 scales
    how often images are flipped and how far the rest goes; 0 changes nothing. Returns image
    (B, 3, S, S) float32 0...1 and mask, of its shape, float32 of 0 and 1, both contiguous and on
    the device of `image`.
    """
    if strength == 0:
        return to_float(image, mask)
    uniform = uniform.to(image.device, torch.float32)
    affine, colour = _affine(uniform, strength), _colour(uniform, strength)
    bytes_on_cpu = image.device.type == "cpu" and image.dtype == mask.dtype == torch.uint8
    return (_change_bytes if bytes_on_cpu else _change)(image, mask, affine, colour)


def to_float(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `augment_batch` returns, unchanged but for the type: float32 in 0...1."""
    image = image.float().div_(255) if image.dtype == torch.uint8 else image.float()
    return image.contiguous(), mask.float().contiguous()


def shrunk(image: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return what `augment_batch` returns with `size` pixels a side, fewer than it has.

    A pixel of the image is a weighted mean of what it covers, so that fine texture does not alias;
    one of the mask is 1 where at least half of that is.
    """
    image, share = (
        functional.interpolate(each, (size, size), mode="bilinear", antialias=True)
        for each in (image, mask)
    )
    return image, (share >= 0.5).to(mask.dtype)


def _affine(uniform: Tensor, strength: float) -> Tensor:
    """Return (B, 2, 3): from a place in the result to its place in the source, both -1...1."""
    flip, crop, right, down, turn = uniform[:, :5].unbind(1)
    side = 1 - strength * (1 - SMALLEST_CROP) * crop
    # The cube keeps most photos nearly upright, as test photos are: one in five turns beyond 15
    # degrees. The field's recipes rotate one image in five.
    angle = strength * torch.deg2rad(LARGEST_ANGLE * (2 * turn - 1) ** 3)
    mirror = torch.where(flip < 0.5 * strength, -1.0, 1.0)
    cosine, sine = side * angle.cos(), side * angle.sin()
    x, y = (1 - side) * (2 * right - 1), (1 - side) * (2 * down - 1)
    rows = (mirror * cosine, -sine, x, mirror * sine, cosine, y)
    return torch.stack(rows, 1).view(-1, 2, 3)


def _colour(uniform: Tensor, strength: float) -> Tensor:
    """Return (B, 3), so that new colour = first * colour + second * its grey + third.

    This is brightness, then contrast about middle grey, then saturation, multiplied out.
    """
    spans = (BRIGHTNESS, CONTRAST, SATURATION)
    brightness, contrast, saturation = (
        1 + strength * span * (2 * column - 1)
        for span, column in zip(spans, uniform[:, 5:].unbind(1), strict=True)
    )
    gain = brightness * contrast
    return torch.stack([gain * saturation, gain * (1 - saturation), (1 - contrast) / 2], 1)


def _change(image: Tensor, mask: Tensor, affine: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Sample image and mask together, mirrored beyond the edge; then mix the colours."""
    size = image.shape[-1]
    # Written out, as affine_grid multiplies matrices: TF32 would move pixels by a tenth of one.
    centres = torch.arange(1 - size, size, 2, device=image.device) / size
    x_part = affine[:, :, 0, None, None] * centres
    y_part = affine[:, :, 1, None] * centres + affine[:, :, 2, None]
    grid = (x_part + y_part[..., None]).permute(0, 2, 3, 1)  # (B, S, S, 2)
    both = torch.cat(to_float(image, mask), 1)
    both = functional.grid_sample(both, grid, "bilinear", "reflection", align_corners=False)
    red, green, blue = both[:, :3].split(1, dim=1)
    own, by_grey, offset = colour[:, :, None, None, None].unbind(1)
    grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue).mul_(by_grey).add_(offset)
    return (own * both[:, :3]).add_(grey).clamp_(0, 1), (both[:, 3:] >= 0.5).float()


def _change_bytes(
    image: Tensor, mask: Tensor, affine: Tensor, colour: Tensor
) -> tuple[Tensor, Tensor]:
    """Do what `_change` does, to within two grey levels, several times as fast on a CPU.

    OpenCV works on bytes, image and mask as four channels; its rounding cuts the mask at a half.
    All but the result lives in a few small arrays used again for every image: in fresh memory
    the first touch of each page costs as much as the work.
    """
    size = image.shape[-1]
    planes = np.empty((4, size, size), np.uint8)
    still, moved = np.empty((2, size, size, 4), np.uint8)
    colours, mixed = np.empty((2, size, size, 3), np.uint8)
    new_image = torch.empty_like(image, dtype=torch.float32, memory_format=torch.contiguous_format)
    new_mask = torch.empty_like(mask, dtype=torch.float32, memory_format=torch.contiguous_format)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    maps = zip(_in_pixels(affine, size), _mixings(colour), strict=True)
    for i, (matrix, mixing) in enumerate(maps):
        cv2.merge([*image[i].numpy(), mask[i, 0].numpy()], still)
        cv2.warpAffine(still, matrix, (size, size), moved, flags, cv2.BORDER_REFLECT)
        cv2.transform(cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB, colours), mixing, mixed)
        cv2.split(mixed, list(planes[:3]))
        cv2.extractChannel(moved, 3, planes[3])
        new_image[i], new_mask[i, :1] = torch.from_numpy(planes).split((3, 1))
        for other in range(1, mask.shape[1]):  # OpenCV moves four channels at most
            layer = mask[i, other].numpy()
            moved_layer = cv2.warpAffine(
                layer, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT
            )
            new_mask[i, other] = torch.from_numpy(moved_layer)
        new_image[i].div_(255)  # now, while it is in the processor's cache
    return new_image, new_mask


def _in_pixels(affine: Tensor, size: int) -> NDArray[np.float64]:
    """Return `affine` as (B, 2, 3) between pixel numbers; pixel i lies at (2 i + 1) / size - 1."""
    turn = affine[:, :, :2]
    shift = (size - 1) / 2 * (1 - turn.sum(2)) + size / 2 * affine[:, :, 2]
    return torch.cat([turn, shift[..., None]], 2).double().numpy()


def _mixings(colour: Tensor) -> NDArray[np.float32]:
    """Return `colour` as (B, 3, 4) matrices for colours of 0...255 and a one."""
    own, by_grey, offset = colour[:, :, None, None].unbind(1)
    mixing = own * torch.eye(3) + by_grey * torch.tensor(GREY)
    return torch.cat([mixing, (255 * offset).expand(-1, 3, 1)], 2).numpy()
