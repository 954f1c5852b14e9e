"""What a run logged while it trained, as one figure: losses, rates and what was validated."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from savae_dist.colours import COLOURS

COLUMNS = 3
Curves = Mapping[str, tuple[list[int], list[float]]]  # tag -> (steps, values)


def grouped(curves: Curves) -> dict[str, Curves]:
    """The curves by the first part of their tags, those of the validation last.

    Those of a single point, and those that are zero throughout (no update was skipped), are left out.
    """
    groups: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for tag, points in curves.items():
        group, _, name = tag.rpartition("/")
        if len(points[0]) > 1 and any(points[1]):
            groups.setdefault(group or "run", {})[name] = points
    return dict(sorted(groups.items(), key=lambda one: (one[0] == "validation", one[0])))


def training_curves(curves: Curves) -> Figure | None:
    """A panel for each curve over the steps of the run, groups in colours of their own; None without any."""
    groups = grouped(curves)
    panels = [(group, name, points) for group, members in groups.items() for name, points in sorted(members.items())]
    if not panels:
        return None
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4.0 * COLUMNS, 1.9 * rows + 0.6), layout="constrained")
    figure.suptitle("Training curves, over the steps of the run", fontsize=11)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).flatten()
    colours = {group: COLOURS[number % len(COLOURS)] for number, group in enumerate(groups)}
    for axes, (group, name, (steps, values)) in zip(grid, panels, strict=False):
        axes.plot(steps, values, color=colours[group], linewidth=1.1, marker="." if len(steps) < 30 else "")
        axes.set_title(f"{group}/{name}", fontsize=8)
        axes.tick_params(labelsize=7, labelbottom=True)
        axes.grid(alpha=0.3, linewidth=0.5)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure
