"""Each alarm: given once, when its ten iterations are over, and not without its reason."""

import pytest

from common.files import write_jsonl
from rl.alarms import WINDOW, Alarms
from rl.run_log import RunLog

HEALTHY = {"kept_fraction": 0.5, "groups_all_right": 1, "groups_all_wrong": 2, "truncated": 0.1}
HEALTHY |= {"response_tokens": 40.0, "entropy": 1.0, "kl": 0.01, "reward_mean": 0.3}
SICK = {
    "nothing to learn from": {"kept_fraction": 0.0, "entropy": None, "kl": None},
    "do not end by themselves": {"truncated": 0.6},
    "responses grew from 40 to": {"response_tokens": 90.0},
    "entropy fell from 1.000 to 0.050 nats": {"entropy": 0.05},
    "nats a token from where it started": {"kl": 0.6},
}


def lines_of(rows):
    alarms = Alarms()
    return [[(number, line) for line in alarms.check(row)] for number, row in enumerate(rows)]


@pytest.mark.parametrize("reason", SICK)
def test_an_alarm_is_given_once_when_its_window_is_full_of_it(reason):
    rows = [HEALTHY] * WINDOW + [HEALTHY | SICK[reason]] * 3 * WINDOW
    given = [line for lines in lines_of(rows) for line in lines]
    assert len(given) == 1 and reason in given[0][1]
    assert WINDOW < given[0][0] <= 2 * WINDOW - 1


def test_a_healthy_run_gives_none_and_neither_do_a_few_bad_iterations():
    assert not any(lines_of([HEALTHY] * 50))
    for sick in SICK.values():
        assert not any(lines_of([HEALTHY] * 3 + [HEALTHY | sick] * (WINDOW - 4)))
        assert not any(lines_of([HEALTHY] * 20 + [HEALTHY | sick] + [HEALTHY] * 20))


@pytest.mark.parametrize(("right", "side"), [(3, "right"), (0, "wrong")])
def test_a_dead_run_says_on_which_side(right, side):
    row = HEALTHY | {"kept_fraction": 0.0, "groups_all_right": right}
    (line,) = [line for lines in lines_of([row] * WINDOW) for _, line in lines]
    assert f"the last ones all {side}" in line


def test_several_alarms_do_not_hide_each_other():
    sick = HEALTHY | {"truncated": 0.9, "kl": 2.0}
    given = [line for lines in lines_of([sick] * 30) for line in lines]
    assert [number for number, _ in given] == [WINDOW - 1] * 2


def test_iterations_without_an_update_have_no_entropy_and_do_not_count_for_it():
    idle = HEALTHY | {"entropy": None, "kl": None}
    assert not any(lines_of([idle] * 3 + [HEALTHY] * WINDOW + [idle] * 5 + [HEALTHY] * WINDOW))


def test_a_resumed_run_does_not_repeat_an_alarm(tmp_path, capsys):
    rows = [HEALTHY | {"iteration": i, "truncated": 0.9} for i in range(14)]
    write_jsonl(tmp_path / "log.jsonl", rows)
    log = RunLog(tmp_path, start=12, is_main=True)
    for row in rows[12:]:
        log.iteration(row)
    assert "alarm" not in capsys.readouterr().out
    fresh = RunLog(tmp_path, start=0, is_main=True)
    for row in rows:
        fresh.iteration(row)
    assert capsys.readouterr().out.count("alarm, iteration 9: 90%") == 1
