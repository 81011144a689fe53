"""Images a second and core: decode, augment and resize every time, or the cache and one batch.

    python benchmarks/bench_loader.py                  # on generated photos of 1024 x 768
    python benchmarks/bench_loader.py --data DIR       # on the training images found in DIR

The first two rows do what the field's training scripts do for every image of every epoch, in the
manner of SINet-V2 (Fan et al., TPAMI 2022): decode, flip, crop, rotate, change colours and
sharpness at the photo's full size, then resize and normalise. One row rotates one image in five,
as published, the other rotates all, as the batch augmentation does. The other rows read the cache
and augment on this CPU, or leave that to the GPU. One thread, seconds of the processor (waiting
does not count), repeats interleaved, medians.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from camoxpert_nb.data.augment import augment_batch
from camoxpert_nb.data.batches import Batches, PairDataset, make_loader
from camoxpert_nb.data.cache import open_cache
from camoxpert_nb.data.images import image_size
from camoxpert_nb.data.layouts import Pair, find_datasets

BORDER = 30  # pixels that the full-size crop may take away
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
Batch = tuple[Tensor, Tensor]


def generate(folder: Path, count: int) -> list[Pair]:
    """Write photos of 1024 x 768 pixels and about 280 kB, and masks with one object."""
    chance = np.random.default_rng(0)
    y, x = np.mgrid[:768, :1024]
    pairs = []
    for number in range(count):
        coarse = chance.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (1024, 768), interpolation=cv2.INTER_CUBIC).astype(int)
        photo = np.clip(photo + chance.integers(-6, 7, photo.shape), 0, 255).astype(np.uint8)
        left, top = chance.uniform(300, 700), chance.uniform(250, 500)
        mask = ((x - left) / 220) ** 2 + ((y - top) / 130) ** 2 < 1
        name = f"{number:03d}"
        pair = Pair(name, folder / f"{name}.jpg", folder / f"{name}.png", "generated")
        Image.fromarray(photo).save(pair.image, quality=90)
        Image.fromarray((mask * 255).astype(np.uint8)).save(pair.mask)
        pairs.append(pair)
    return pairs


def full_size(pair: Pair, size: int, rotated: float) -> Batch:
    """Return one normalised image and its mask, augmented at full size with Pillow."""
    image, mask = Image.open(pair.image).convert("RGB"), Image.open(pair.mask).convert("L")
    if random.random() < 0.5:
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        image, mask = image.transpose(mirror), mask.transpose(mirror)
    width, height = image.size
    left, top = random.randint(0, BORDER // 2), random.randint(0, BORDER // 2)
    box = (left, top, width - left, height - top)
    image, mask = image.crop(box), mask.crop(box)
    if random.random() < rotated:
        angle = random.uniform(-30, 30)
        image, mask = (photo.rotate(angle, Image.Resampling.BICUBIC) for photo in (image, mask))
    image = ImageEnhance.Brightness(image).enhance(random.uniform(0.5, 1.5))
    image = ImageEnhance.Contrast(image).enhance(random.uniform(0.5, 1.5))
    image = ImageEnhance.Color(image).enhance(random.uniform(0.0, 2.0))
    image = ImageEnhance.Sharpness(image).enhance(random.uniform(0.0, 3.0))
    image, mask = (photo.resize((size, size), Image.Resampling.BILINEAR) for photo in (image, mask))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    return pixels.sub_(MEAN).div_(DEVIATION), torch.from_numpy(np.array(mask))[None].float() / 255


def full_size_batches(
    pairs: Sequence[Pair], batch: int, size: int, rotated: float
) -> Iterator[Batch]:
    """Yield batches of `full_size` images, stacked as a loader does."""
    while True:
        images, masks = zip(
            *(full_size(pair, size, rotated) for pair in random.choices(pairs, k=batch)),
            strict=True,
        )
        yield torch.stack(images), torch.stack(masks)


def cached_batches(dataset: PairDataset, batch: int, augment: bool) -> Iterator[Batch]:
    """Yield batches from the cache, augmented on this CPU or left as bytes for the GPU."""
    batches = Batches(len(dataset), batch)
    loader = make_loader(dataset, batches)
    while True:
        for data in loader:
            image, mask = data["image"], data["mask"]
            yield augment_batch(image, mask, data["uniform"]) if augment else (image, mask)
        batches.set_epoch(batches.epoch + 1)


def measure(
    sources: dict[str, tuple[Iterator[Batch], int]], repeats: int, batch: int
) -> dict[str, float]:
    """Return the median images a second of each source, taken in turns."""
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for repeat in range(repeats + 1):
        for name, (source, count) in sources.items():
            started = time.process_time()
            for _ in islice(source, count):
                pass
            if repeat:  # the first round only warms up
                rates[name].append(count * batch / (time.process_time() - started))
    return {name: statistics.median(values) for name, values in rates.items()}


def run(pairs: Sequence[Pair], cache_dir: Path, options: argparse.Namespace) -> None:
    """Measure all ways on `pairs` and print the table."""
    started = time.perf_counter()
    dataset = PairDataset(open_cache(pairs, options.size, cache_dir))
    built = time.perf_counter() - started
    batch, size = min(options.batch, len(pairs)), options.size
    sources = {
        "full size, 1 in 5 rotated": (full_size_batches(pairs, batch, size, 0.2), 2),
        "full size, all rotated": (full_size_batches(pairs, batch, size, 1.0), 2),
        "cache + augment_batch": (cached_batches(dataset, batch, True), 20),
        "cache, augmented on a GPU": (cached_batches(dataset, batch, False), 40),
    }
    rates = measure(sources, options.repeats, batch)
    pixels = statistics.mean(math.prod(image_size(pair.image)) for pair in pairs) / 1e6
    print(f"{len(pairs)} photos of {pixels:.2f} megapixels, to {size} px, batches of {batch}")
    print(f"cache of {dataset.cache.array.nbytes / 2**20:.0f} MiB made in {built:.1f} s, once")
    slow, slower = list(rates.values())[:2]
    print(f"{'':28}{'images/s':>10}{'x 1 in 5':>10}{'x all':>10}")
    for name, rate in rates.items():
        print(f"{name:28}{rate:10.1f}{rate / slow:10.1f}{rate / slower:10.1f}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data set's folder; without: generated photos")
    parser.add_argument("--size", type=int, default=352, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--images", type=int, default=200, help="at most so many are used")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data:
            found = find_datasets(options.data)
            pairs = [pair for image_set in found for pair in image_set.train + image_set.test]
        else:
            pairs = generate(folder, min(options.images, 48))
        pairs = random.sample(pairs, min(options.images, len(pairs)))
        run(pairs, folder / "cache", options)


if __name__ == "__main__":
    main()
