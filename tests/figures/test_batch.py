"""The picture of a batch is the batch: same images, same augmentation as the first step's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from own_parts import flips

from camoxpert_nb import make_config, show_batch
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.own import Own


def pictures(figure: Any) -> list[Any]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


@pytest.mark.parametrize("augment", [None, flips])
def test_it_shows_what_the_first_step_gets(
    tiny: Config, augment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Any] = []

    def loss(logits: Any, masks: Any) -> Any:
        return (logits.sigmoid() - masks).square().mean((1, 2, 3))

    from camoxpert_nb.network import losses

    forward = losses.Supervised.forward

    def noted(self: Any, image: Any, mask: Any) -> Any:
        got.append(image)
        return forward(self, image, mask)

    monkeypatch.setattr(losses.Supervised, "forward", noted)
    fit(tiny, own=Own(loss=loss, augment=augment))
    shown = pictures(show_batch(tiny, augment=augment, images=99))
    expected = (got[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
    assert len(shown) == tiny.batch_size
    np.testing.assert_array_equal(np.stack(shown), expected)


def test_the_caption_names_size_and_strength(tiny: Config) -> None:
    title = show_batch(tiny.replace(augment=0.5), images=3).get_suptitle()
    assert "3 of a batch of 4 in epoch 1" in title and "64 x 64 px" in title
    assert "strength 0.5 of 1" in title
    auto = make_config("auto", dataset_path=tiny.dataset_path, epochs=6, img_size=64)
    assert "strength 0.25" in show_batch(auto, images=1).get_suptitle()
    assert "augmented by flips" in show_batch(tiny, augment=flips).get_suptitle()
    first, later = (pictures(show_batch(tiny, epoch=epoch))[0] for epoch in (1, 2))
    assert (first != later).any()


def test_nothing_to_show_is_told(tiny: Config) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        show_batch(tiny, images=0)
