from jaynes_callbacks.files.pairing import pair_names

SHAPE = (9, 9)


def test_equal_names_come_first() -> None:
    ours = {"a.w": SHAPE, "b.w": SHAPE}
    assert pair_names(ours, {"b.w": SHAPE, "a.w": (2, 2)}) == {"a.w": "a.w", "b.w": "b.w"}


def test_a_longer_common_end_wins() -> None:
    ours = {f"model.h.{i}.{j}.weight": SHAPE for i in range(3) for j in "qk"}
    theirs = {f"base.h.{i}.{j}.weight": SHAPE for i in range(3) for j in "qk"}
    assert pair_names(ours, theirs) == {n: n.replace("model", "base") for n in ours}


def test_what_is_ambiguous_stays_alone() -> None:
    assert pair_names({"x.weight": SHAPE}, {"a.weight": SHAPE, "b.weight": SHAPE}) == {}
    assert pair_names({"x.weight": SHAPE}, {"y.weight": (3, 3)}) == {}
    assert pair_names({"x.q": SHAPE}, {"x.k": SHAPE}) == {}
