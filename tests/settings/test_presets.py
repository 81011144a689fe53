"""What a machine is proposed, and how the reason is told."""

from __future__ import annotations

from camoxpert_nb.settings.presets import suggest


def test_auto_goes_by_the_hardware_and_says_why() -> None:
    assert suggest([], own_images=False)[0] == "demo"
    for own in (False, True):
        two, large, small = (suggest(gib, own_images=own) for gib in ([14.6] * 2, [14.6], [11.0]))
        assert two.changes == {"batch_size": 16, "stage2_batch_size": 12}
        assert (large.changes, small.changes) == ({"batch_size": 12}, {"batch_size": 8})
        assert {two.preset, large.preset, small.preset} == {"auto"}
        assert "2 GPUs" in two.reason and "14.6 GiB" in large.reason and "under 14" in small.reason
    cpu = suggest([], own_images=True)
    assert cpu.preset == "auto" and cpu.changes["img_size"] < 320 and cpu.changes["epochs"] < 20
    assert "--img-size and --epochs" in cpu.reason


def test_the_reason_of_auto_is_silent_on_what_was_chosen() -> None:
    def reason(gib: list[float], *given: str) -> str:
        return suggest(gib, own_images=True, given=given).reason

    assert reason([], "img_size") == "no GPU, so 6 epochs; --epochs overrides"
    assert reason([], "epochs") == "no GPU, so 192 px; --img-size overrides"
    assert reason([], "img_size", "epochs", "seed") == "no GPU"
    assert reason([14.6], "batch_size") == "one GPU with 14.6 GiB"
    assert reason([14.6] * 2, "batch_size") == "2 GPUs, batch 12 on each in stage two"
    assert reason([14.6] * 2, "stage2_batch_size") == "2 GPUs, batch 16 on each in stage one"
    assert reason([14.6] * 2, "stage2_batch_size", "batch_size") == "2 GPUs"


def test_a_cpu_gets_the_demo_until_a_data_set_is_given() -> None:
    found = suggest([], own_images=False)
    assert found.changes == {} and found.reason.startswith("no GPU and no data set: ")
    own = suggest([], own_images=True)
    assert own.changes == {"img_size": 192, "epochs": 6, "batch_size": 8}
    assert own.reason == (
        "no GPU, so 192 px and 6 epochs: minutes for a few hundred photos, hours for thousands "
        "(--dry-run measures it); --img-size and --epochs override"
    )


def test_memory_draws_the_line_at_fourteen() -> None:
    at, below = suggest([14.0], own_images=True), suggest([13.9], own_images=True)
    assert (at.changes["batch_size"], below.changes["batch_size"]) == (12, 8)
    assert at.reason == "one GPU with 14 GiB, batch 12"
    assert below.reason == "one GPU with 13.9 GiB, under 14, batch 8"
    assert suggest([14.6] * 4, own_images=True).reason == "4 GPUs, batch 16 and 12 on each"
