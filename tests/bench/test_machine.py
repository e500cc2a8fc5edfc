# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.bench import machine

HERE = {"cpu": "a cpu", "cores": 2, "memory": 1 << 30, "kernel": "6.1", "python": "3.11", "numba": "0.68"}


def test_the_share_that_other_machines_had_is_of_the_time_since_then(monkeypatch):
    monkeypatch.setattr(machine, "core_ticks", lambda: (1400, 150))

    assert machine.stolen_since((1000, 50)) == 0.25
    assert machine.stolen_since((1400, 150)) == 0


def test_ticks_that_were_stolen_are_among_all_ticks():
    ticks, stolen = machine.core_ticks()

    assert 0 <= stolen <= ticks


@pytest.mark.parametrize(("stolen", "said"), [(0.0, False), (0.004, False), (0.31, True), (None, False)])
def test_a_reader_is_told_of_stolen_time_that_matters(stolen, said):
    line = machine.one_line(HERE if stolen is None else {**HERE, "stolen": stolen})

    assert ("other machines had 31%" in line) == said
