"""The metrics of a run in words: how good they are, and beside which baseline."""

from __future__ import annotations

from collections.abc import Mapping

Values = Mapping[str, float | None]

EQUAL = 0.02  # errors that differ by less than this share of the baseline count as equal


def in_words(values: Values) -> list[str]:
    """A sentence for each kind of figure among `values`; those that are None or missing are passed over."""
    sentences = (_classes(values), _reconstructions(values), _spectra(values))
    return [sentence for sentence in sentences if sentence]


def _classes(values: Values) -> str:
    accuracy = values.get("accuracy")
    if accuracy is None:
        return ""
    clusters = "" if values.get("cluster_error") is None else ", by the class that most of their cluster have"
    return f"classes: {percent(accuracy)} of the samples are put into the right one{clusters}"


def _reconstructions(values: Values) -> str:
    error = values.get("reconstruction_mse")
    if error is None:
        return ""
    told = [f"reconstructions: error {error:.3f}{beside(error, values.get('class_mean_mse'))}"]
    own, judged, sharpness = (values.get(name) for name in ("class_flip_rate", "judge_flip_rate", "sharpness"))
    if own is not None:
        told.append(f"{percent(own)} change their class")
    if judged is not None:
        told.append(f"{percent(judged)} do so for the judge")
    if sharpness is not None:
        told.append(f"{percent(sharpness)} of the samples' sharpness")
    return "; ".join(told)


def _spectra(values: Values) -> str:
    distance = values.get("log_spectral_distance")
    if distance is None:
        return ""
    return f"spectra: {distance:.3f} dB off{beside(distance, values.get('class_mean_log_spectral_distance'))}"


def beside(error: float, baseline: float | None) -> str:
    """`, 48 % of what the class mean has (0.043)`; empty without a baseline, or where that has no error."""
    if not baseline:
        return ""
    share = error / baseline
    if abs(share - 1) < EQUAL:
        return f", no better than the class mean ({baseline:.3f})"
    if share < 1:
        return f", {percent(share)} of what the class mean has ({baseline:.3f})"
    return f", worse than the class mean ({baseline:.3f})"


def percent(share: float) -> str:
    """`1.2 %`, and `48 %` from ten on."""
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f} %"
