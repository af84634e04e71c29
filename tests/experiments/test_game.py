import pytest

from experiments.game import main, played
from experiments.games import CROWDS, LAWS, lognormal


def test_the_theorys_dynamics_end_at_its_law() -> None:
    start, end, law_gap = played(50_000, lognormal(-4.0, 0.8))
    assert start[0].gap == pytest.approx(0.419, abs=0.01)
    assert end[0].mu == pytest.approx(-4.0, abs=0.02)
    assert end[0].sigma == pytest.approx(0.8, abs=0.02)
    assert end[0].gap < 0.003
    assert end[0].n == start[0].n
    assert end[0].verdict == "emerged"
    assert law_gap < 1e-3


@pytest.mark.parametrize("name", sorted(set(LAWS) - {"weights"}))
def test_another_law_is_the_best_family_of_its_game(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--law", name, "--agents", "100000"]) == 0
    printed = capsys.readouterr().out
    label = LAWS[name].family.label
    (row,) = (line for line in printed.splitlines() if "potential_game" in line)
    assert f" {label} " in row
    assert f"predicted {label} (" in printed


@pytest.mark.parametrize("law", ["weibull", "weights"])
def test_a_law_that_was_not_reached_fails(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.game._ROUNDS", 0)
    assert main(["--law", law, "--agents", "20000"]) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mixing", "one phase, 200.0 agents a bin, utility 1.5049 nats"),
        ("segregation", "49.8% of the bins hold 344.0 agents each and the others 57.0 agents"),
        ("flocking", "31.0% of the bins hold 96.7 agents each and the others nobody"),
    ],
)
def test_the_command_prints_the_phases_of_a_crowd(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.game._ROUNDS", 20)
    assert main(["--crowd", name]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{CROWDS[name].agents}: ")
    assert said in printed
    monkeypatch.setattr("experiments.game._ROUNDS", 0)
    assert main(["--crowd", name]) == 1


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
