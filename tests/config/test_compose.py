"""Overrides as points of a sweep."""

from cxrlit.config.compose import expand_sweep


def test_a_sweep_is_every_combination() -> None:
    jobs = expand_sweep(["phase=highres", "n_unfreeze=25,50", "lr=1e-5,5e-6"])
    assert jobs == [
        ["phase=highres", f"n_unfreeze={n_unfreeze}", f"lr={lr}"]
        for n_unfreeze in (25, 50)
        for lr in ("1e-05", "5e-06")
    ]
    assert expand_sweep(["a=1", "b=[1,2]"]) == [["a=1", "b=[1,2]"]]
