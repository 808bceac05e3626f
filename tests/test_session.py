"""The set-up cell: root from anywhere, seeds, profiles, records, expected errors."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from instructlab_utils import expect_error, project, start
from instructlab_utils.errors import ConfigError, ParameterError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "assets.toml").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    for name in ("INSTRUCTLAB_ROOT", "INSTRUCTLAB_PROFILE", "INSTRUCTLAB_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_root_is_found_from_below(folder, monkeypatch):
    for place in (".", "notebooks", "notebooks/deep"):
        monkeypatch.chdir(folder / place)
        assert project.find_root() == folder


def test_same_seed_same_numbers(folder):
    drawn = []
    for seed in (3, 3, 4):
        start("03", profile="smoke", seed=seed)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1] != drawn[2]


def test_profile_comes_from_the_parameter_then_the_environment(folder, monkeypatch):
    assert project.resolve_profile("auto") == "laptop"
    monkeypatch.setenv("INSTRUCTLAB_PROFILE", "smoke")
    assert project.resolve_profile("auto") == "smoke"
    assert project.resolve_profile("laptop") == "laptop"
    with pytest.raises(ParameterError, match="unknown profile 'tiny': choose one of smoke, laptop, gpu"):
        project.resolve_profile("tiny")


@pytest.mark.parametrize("seed", [-1, 1.5, "2", True])
def test_a_bad_seed_gets_a_sentence(folder, seed):
    with pytest.raises(ParameterError, match="seed must be a whole number"):
        start("03", profile="smoke", seed=seed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_profile_without_a_gpu_is_refused(folder):
    with pytest.raises(ParameterError, match="needs a CUDA device"):
        start("03", profile="gpu")


def test_every_knob_has_all_profiles():
    for lesson in ("00", "01", "03"):
        rows = [vars(project.budget(lesson, profile)) for profile in project.PROFILES]
        assert rows[0] and rows[0].keys() == rows[1].keys() == rows[2].keys()


def test_a_missing_column_gets_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "profiles.toml").write_text('["09"]\nn = { smoke = 1, laptop = 2 }\n')
    monkeypatch.setattr(project, "__file__", str(tmp_path / "project.py"))
    with pytest.raises(ConfigError, match=r"\[09\] n has no column 'gpu'"):
        project.budget("09", "gpu")
    (tmp_path / "profiles.toml").write_text("n = = 1")
    with pytest.raises(ConfigError, match="profiles.toml: not valid TOML"):
        project.budget("09", "gpu")


def test_record_is_a_file_and_refuses_what_is_no_number(folder):
    run = start("03", profile="smoke")
    run.record(accuracy=np.float64(0.5), steps=3, loss=torch.tensor(0.25), verdict="supported")
    stored = json.loads((run.out / "metrics.json").read_text())
    assert stored == run.metrics == {"accuracy": 0.5, "steps": 3, "loss": 0.25, "verdict": "supported"}
    with pytest.raises(TypeError, match="takes a number or a string, not list"):
        run.record(values=[1, 2])
    with pytest.raises(ValueError, match="the value is NaN"):
        run.record(loss=float("nan"))


def test_lines_are_found_again(folder):
    run = start("baselines", profile="smoke")
    run.line({"method": "full", "learning_rate": 0.1}, accuracy=0.7)
    assert run.have({"method": "full", "learning_rate": 0.1})["accuracy"] == 0.7
    assert run.have({"method": "full", "learning_rate": 0.2}) is None


def test_figures_of_a_smoke_run_stay_out_of_figures(folder):
    from instructlab_utils import plotting

    figure, _ = plotting.axes()
    assert start("03", profile="smoke").figure(figure, "x").parent != folder / "figures"
    assert start("03", profile="laptop").figure(figure, "x") == folder / "figures" / "x.png"


def test_expect_error(capsys):
    with expect_error(ValueError, match="too big"):
        raise ValueError("7 is too big\nsecond line")
    assert capsys.readouterr().out == "ValueError: 7 is too big\n"
    with (
        pytest.raises(AssertionError, match="expected KeyError, but nothing was raised"),
        expect_error(KeyError),
    ):
        assert True
    with pytest.raises(AssertionError, match="expected a message like"), expect_error(ValueError, match="no"):
        raise ValueError("yes")
    with pytest.raises(TypeError), expect_error(ValueError):
        raise TypeError("another kind passes through")
