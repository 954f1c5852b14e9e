"""A recording under watch: its score over time against a threshold of healthy machines, as a table and a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from savae_dist.evaluation.signals import anomaly
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.pipeline.class_names import name_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.stream import Signal
from savae_dist.spectra import envelope, log_spectrum

COLUMNS = 600  # the picture has no more, however long the recording is
SEGMENT, SEGMENTS = 16_384, 16  # samples and number of the parts of which the envelope spectrum is the mean


@dataclass(frozen=True)
class Alarm:
    """limit: of the mean combined score of a recording; rate: the share of healthy machines that pass it.

    lowest: the mean score of the healthy recording that has the lowest.
    """

    scales: anomaly.Scales
    limit: float
    rate: float
    lowest: float

    @classmethod
    def of(cls, pipeline: Pipeline, healthy: Windows, rate: float) -> Alarm:
        """From recordings of healthy machines, one of which is left out at a time."""
        anomaly.check_machines(healthy)
        own = anomaly.of_pipeline(pipeline, healthy)

        def score(rows: np.ndarray) -> dict[str, np.ndarray]:
            return {anomaly.COMBINED: anomaly.combined(own, anomaly.scales(own, rows))}

        highest = anomaly.healthy_statistics(healthy, score, 1)[anomaly.COMBINED]
        limit, supported = anomaly.threshold(highest, rate)
        every = np.arange(len(healthy.x))
        lowest = anomaly.Lives.of(healthy).mean(score(every)[anomaly.COMBINED]).min()
        return cls(anomaly.scales(own, every), limit, supported, float(lowest))

    def verdict(self, score: float) -> str:
        """Whether a score is an alarm, and by how much."""
        beyond = score - self.limit
        if beyond <= 0:
            return f"no alarm, score {score:.2f}, threshold {self.limit:.2f}"
        far = f"{beyond:.2f}" if beyond >= 0.01 else f"{beyond:.1g}"
        return f"ALARM, score {score:.2f}, {far} above the threshold {self.limit:.2f}"

    def far_below(self, score: float) -> bool:
        """Whether a score lies below those of healthy recordings by more than these and the threshold are apart."""
        return score < self.lowest - max(self.limit - self.lowest, 0.0)


@dataclass
class Watched:
    """What is kept of a recording, in memory that does not grow with it: means in at most `COLUMNS` columns of time.

    sums, counts: of the combined score `[columns]`. spectra: the log spectrum of one window a column `[columns,
    frequencies]`. votes: the sum of the class probabilities `[classes]`.
    """

    seconds: float
    sums: np.ndarray
    counts: np.ndarray
    spectra: dict[int, np.ndarray] = field(default_factory=dict)
    votes: np.ndarray | None = None

    @property
    def score(self) -> float:
        """The mean over all windows."""
        return float(self.sums.sum() / self.counts.sum())


def watch(pipeline: Pipeline, signal: Signal, hop: int, alarm: Alarm, file: Path) -> Watched:
    """Score a recording at the pipeline's rate window by window, and write a row each to `file`."""
    rate, (_, length) = pipeline.spec.rate or 1.0, pipeline.spec.shape
    count = max((signal.length - length) // hop + 1, 1)
    columns = min(count, COLUMNS)
    found = Watched(signal.length / rate, np.zeros(columns), np.zeros(columns, int))
    names = pipeline.spec.class_names
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        for piece in pipeline.stream(signal, hop):
            score = anomaly.combined(piece.scores, alarm.scales)
            if not found.counts.any():
                writer.writerow(["seconds", anomaly.COMBINED, *piece.scores, "class", "probability"])
            column = piece.start // hop * columns // count
            np.add.at(found.sums, column, score)
            np.add.at(found.counts, column, 1)
            for one, start in dict(zip(column.tolist(), piece.start.tolist(), strict=True)).items():
                if one not in found.spectra:
                    found.spectra[one] = log_spectrum(signal.read(start, start + length)[None, :1])[0, 0]
            known = piece.probabilities
            if known is not None:
                found.votes = known.sum(0) + (0 if found.votes is None else found.votes)
            for row, start in enumerate(piece.start.tolist()):
                best = None if known is None else int(known[row].argmax())
                shown = ["", ""] if known is None or best is None else [name_of(best, names), f"{known[row, best]:.4f}"]
                each = [f"{values[row]:.5g}" for values in (score, *piece.scores.values())]
                writer.writerow([f"{start / rate:.4f}", *each, *shown])
    return found


def most_probable(pipeline: Pipeline, found: Watched) -> str:
    """The class that the windows vote for, "" without a classifier."""
    return "" if found.votes is None else name_of(int(found.votes.argmax()), pipeline.spec.class_names)


def envelope_lines(signal: Signal, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and the mean amplitude spectrum of the envelope of the first channel, both `[n]`."""
    size = min(SEGMENT, signal.length)
    starts = np.linspace(0, signal.length - size, min(SEGMENTS, max(signal.length // size, 1))).astype(int)
    total = np.zeros(size // 2)
    for start in starts.tolist():
        part = envelope(signal.read(start, start + size)[None, :1])[0, 0]
        total += np.abs(np.fft.rfft((part - part.mean()) * np.hanning(size)))[1 : size // 2 + 1] * (4 / size)
    return np.arange(1, size // 2 + 1) * rate / size, total / len(starts)


def draw(
    found: Watched, signal: Signal, rate: float, alarm: Alarm, title: str, lines: Mapping[str, float], turns: float = 0
) -> Figure:
    """Score over time with the threshold, spectrogram, and envelope spectrum with lines and sidebands at `turns` Hz."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    above, middle, below = figure.subplots(3, 1)
    time = (np.arange(len(found.sums)) + 0.5) / len(found.sums) * found.seconds
    above.plot(time, found.sums / np.maximum(found.counts, 1), linewidth=0.8)
    above.axhline(
        alarm.limit, color="C3", linestyle="--", linewidth=1, label=f"threshold ({alarm.rate:.0%} of healthy)"
    )
    above.axhline(found.score, color="C1", linewidth=1, label=f"mean {found.score:.2f}")
    above.set(xlabel="time [s]", ylabel="combined score", xlim=(0, found.seconds))
    above.set_yscale("symlog", linthresh=max(abs(alarm.limit), 1.0))  # failures may score a thousand times the usual
    above.set_ylim(bottom=min(0.0, float((found.sums / np.maximum(found.counts, 1)).min())))
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False)  # clear of the curve
    spectra = np.array([found.spectra[one] for one in sorted(found.spectra)])
    extent = (0, found.seconds, 0, rate / 2000)
    image = middle.imshow(spectra.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    figure.colorbar(image, ax=middle, label="dB", pad=0.01)
    middle.set(xlabel="time [s]", ylabel="frequency [kHz]")
    frequency, amplitude = envelope_lines(signal, rate)
    most = max([4.5 * value for value in lines.values()], default=rate / 16)
    kept = frequency <= min(most, rate / 2)
    below.plot(frequency[kept], amplitude[kept], linewidth=0.7, color="0.3")
    for number, (name, value) in enumerate(lines.items()):
        for harmonic in range(1, 4):
            label = f"{name} {value:.1f} Hz" if harmonic == 1 else None
            below.axvline(harmonic * value, color=f"C{number}", linestyle="--", linewidth=0.9, label=label)
            for side in (-turns, turns) if turns else ():
                below.axvline(harmonic * value + side, color=f"C{number}", linestyle=":", linewidth=0.5)
    below.set(xlabel="frequency of the envelope [Hz]", ylabel="amplitude", xlim=(0, frequency[kept][-1]))
    if lines:
        below.legend(loc="upper right", fontsize=8)
    return figure
