import pytest

from experiments.game import main, played


def test_the_theorys_dynamics_end_at_its_law() -> None:
    start, end = played(50_000, mu=-4.0, sigma=0.8)
    assert start[0].gap == pytest.approx(0.419, abs=0.01)
    assert end[0].mu == pytest.approx(-4.0, abs=0.02)
    assert end[0].sigma == pytest.approx(0.8, abs=0.02)
    assert end[0].gap < 0.003
    assert end[0].n == start[0].n
    assert end[0].verdict == "emerged"


def test_the_command_prints_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agents", "20000"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "emerged"
    assert any("potential_game" in line and "lognormal" in line for line in printed)


def test_a_game_that_was_not_played_is_not_emerged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.game._ROUNDS", 0)
    assert main(["--agents", "20000"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "not emerging"


def test_too_few_agents_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--agents", "10"])
    assert "--agents must be at least 2000, got 10" in capsys.readouterr().err
