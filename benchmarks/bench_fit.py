"""Does `fit` cost anything beside a bare loop over the same network and data?

Both train the same steps of the same plan in one process, taking turns. Prints images/s and the
ratio; 1.0 means that records, saves, schedules and data handling are free. Saving the state costs
about the same each epoch, so epochs of a few seconds pay more for it than real ones.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from camoxpert_nb.data.augment import augment_batch
from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.machine.devices import choose_precision, pick_devices
from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.losses import total
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import Loaders, build_state, prepare
from camoxpert_nb.training.validate import validate


def bare_loop(config: Config) -> float:
    """Train as `fit` would, with nothing around it, and return the images per second."""
    training = prepare(config)
    loaders, device = Loaders(training), training.devices.main
    state = build_state(
        config, build_net(config), pick_devices("cpu"), choose_precision(training.devices)
    )
    images, started = 0, time.perf_counter()
    for epoch in range(config.epochs):
        for batch in loaders.epoch(training.plan.stage_at(epoch), epoch):
            image, mask = augment_batch(
                batch["image"].to(device), batch["mask"].to(device), batch["uniform"]
            )
            loss, _ = total(state.supervised(image, mask))
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(state.net.parameters(), config.clip)
            state.optimizer.step()
            if state.ema:
                state.ema.update(state.net, step=1)
            images += len(image)
        for net in (state.net, state.ema.module):
            validate(net, loaders.validation(config.batch_size))
            state.net.train()
    return images / (time.perf_counter() - started)


def whole_fit(config: Config, folder: Path) -> float:
    """Train with `fit` and return the images per second, from its first to its last step."""
    marks: list[tuple[float, int]] = []
    training_size = 0

    def announce(training: object) -> None:
        nonlocal training_size
        training_size = len(training.data.train)  # type: ignore[attr-defined]
        marks.append((time.perf_counter(), 0))

    fit(config.replace(checkpoint_dir=str(folder)), announce=announce)
    seconds = time.perf_counter() - marks[0][0]
    steps = training_size // config.batch_size * config.epochs
    return steps * config.batch_size / seconds


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_synthetic(root / "data", train=options.images, test=1, size=options.size)
        config = make_config(
            "demo",
            dataset_path=str(data),
            cache_dir=str(root / "cache"),
            checkpoint_dir=str(root / "unused"),
            backbone=options.backbone,
            img_size=options.size,
            epochs=options.epochs,
            stage1_epochs=0,
            device="cpu",
        )
        Loaders(prepare(config))  # decode once, before the clock
        ours, theirs = [], []
        for turn in range(options.repeats):
            theirs.append(bare_loop(config))
            ours.append(whole_fit(config, root / f"run{turn}"))
        fast, plain = statistics.median(ours), statistics.median(theirs)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"bare loop {plain:7.1f} img/s\nfit       {fast:7.1f} img/s\nratio     {ratio:7.3f}")


if __name__ == "__main__":
    main()
