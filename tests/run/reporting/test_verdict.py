"""What a run's last lines say in words of its figures, whatever the system has."""

from __future__ import annotations

import pytest

from savae_dist.run.reporting.verdict import in_words


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, []),
        ({"accuracy": None, "reconstruction_mse": None, "log_spectral_distance": None, "kl": 3.0}, []),
        ({"accuracy": 0.9764}, ["classes: 98 % of the samples are put into the right one"]),
        (
            {"accuracy": 0.62, "cluster_error": 0.38},
            ["classes: 62 % of the samples are put into the right one, by the class that most of their cluster have"],
        ),
        (
            {"reconstruction_mse": 0.0206, "class_mean_mse": 0.043, "class_flip_rate": 0.012, "sharpness": 0.761},
            [
                "reconstructions: error 0.021, 48 % of what the class mean has (0.043); 1.2 % change their class; "
                "76 % of the samples' sharpness"
            ],
        ),
        (
            {"reconstruction_mse": 0.0502, "class_mean_mse": 0.042, "class_flip_rate": 0.0, "judge_flip_rate": 0.0999},
            [
                "reconstructions: error 0.050, worse than the class mean (0.042); 0.0 % change their class; "
                "10 % do so for the judge"
            ],
        ),
        (
            {"reconstruction_mse": 0.0427, "class_mean_mse": 0.042},
            ["reconstructions: error 0.043, no better than the class mean (0.042)"],
        ),
        ({"reconstruction_mse": 0.0427, "class_mean_mse": None}, ["reconstructions: error 0.043"]),
        ({"reconstruction_mse": 0.0427, "class_mean_mse": 0.0}, ["reconstructions: error 0.043"]),
        (
            {"log_spectral_distance": 4.0, "class_mean_log_spectral_distance": 5.0},
            ["spectra: 4.000 dB off, 80 % of what the class mean has (5.000)"],
        ),
    ],
)
def test_the_words_follow_from_the_figures(values: dict[str, float | None], told: list[str]) -> None:
    assert in_words(values) == told
