"""A description of the run for people: a few lines at every start, and the longer report of `--check`."""

from __future__ import annotations

from savae_dist.config.compile import Compile
from savae_dist.config.effect import field_values
from savae_dist.data import Mixture, Request, Sequential, Shards, survey
from savae_dist.data.index.losses import lost_line
from savae_dist.data.index.pictures import told
from savae_dist.data.index.report import MANY
from savae_dist.distributed import launch
from savae_dist.networks.conv import FEATURE_STAGES, ConvEncoder
from savae_dist.precision import slower_here
from savae_dist.run import posterior_cache
from savae_dist.run.planning import memory
from savae_dist.run.run import Run
from savae_dist.run.validation import HOLD_OUT, UNMEASURED
from savae_dist.systems.phases import Phase

COMPILED: dict[Compile, str] = {
    "none": "",
    "update": "each update whole, at its first step, which takes minutes; sums round otherwise than without",
    "graphs": "each update whole and as a CUDA graph, at its first steps, which take minutes; never measured on a GPU",
}
TIME = "time:        not measured here; --plan, in one process, predicts it from a few steps of each phase"


def describe(run: Run) -> str:
    """Launch, data, system, phases and output, a line each."""
    process, data = run.process, run.data
    shards = run.results.validation.shards if run.results.validation else None
    validation = f"{shards.size:,} for validation" if shards else "none for validation, so nothing is measured"
    foreign = shards.foreign if shards else 0
    shared = run.results.validation.shared if run.results.validation else ""
    untrained = f" ({foreign:,} of classes that data.train has none of, so unlabelled)" * (foreign > 0)
    sizes = ", ".join(f"{k} {sum(p.numel() for p in n.parameters()):,}" for k, n in run.networks.items())
    steps = ", ".join(f"{phase.name} {run.steps(phase):,} steps" for phase in run.phases)
    going_on = f", continuing {run.resumed_from.name}" if run.resumed_from is not None else ""
    lines = [
        f"launch:     {launch.describe(process.state, run.config.precision, process.strategy)}",
        f"data:       {data.shards.describe()}; {validation}{untrained}",
        *left_out("data.train", data.shards),
        *(left_out("data.validation", shards) if shards is not None and shards.part is None else []),
        *(f"pictures:   {line}" for line in told(data.shards)),
        *held_out(data.shards, shards),
        *(f"warning:    {line}" for line in (shared, slower_here(run.config.precision, process.state.device)) if line),
        f"system:     {run.config.system.name}{chosen(run)}, {sizes} parameters",
        f"phases:     {steps}, global batch {data.builder.split.size} ({run.training.lanes} lanes)",
        *(f"compile:    {line}" for line in [COMPILED[run.config.compile]] if line),
        *["memory:     activations within stages are computed again for the gradient, not kept"]
        * run.config.networks.checkpoint_activations,
        f"output:     {run.folder}{going_on}",
    ]
    return "\n".join(lines)


def left_out(key: str, shards: Shards) -> list[str]:
    """The share of a set that is of no use, as its index knows it."""
    line = lost_line(shards.index)
    return [f"left out:   {key}: {line}"] if line else []


def held_out(training: Shards, validation: Shards | None) -> list[str]:
    """What of the training set was held out for validation: of all, of its recordings and of each class."""
    if validation is None or validation.part is None or training.part is None:
        return []
    size, recordings = training.size + validation.size, training.part.recordings + validation.part.recordings
    names, own = dict(enumerate(training.spec.class_names)), validation.label_counts
    classes = {label: n + own.get(label, 0) for label, n in sorted(training.label_counts.items()) if label >= 0}
    shown = [f"{names.get(label, label)}: {own.get(label, 0):,}/{n:,}" for label, n in list(classes.items())[:MANY]]
    none = sum(label not in own for label in classes)
    lines = [
        f"held out:   {validation.size:,} of {size:,} samples ({validation.size / size:.1%})"
        f"{f' in {validation.part.recordings:,} of {recordings:,} {training.part.unit}' * bool(recordings)}"
        f"{'; of the classes ' * bool(shown)}{', '.join(shown)}{', ...' * (len(classes) > MANY)}"
        f"{f'; none of {none:,} classes, which are too small' * bool(none)}"
    ]
    if training.spec.kind == "signal" and not recordings:
        lines.append(
            "            the shards name no recordings: windows of one may overlap and stand on both sides; "
            "pack them by make_shards recordings, or name data.validation"
        )
    return lines


def chosen(run: Run) -> str:
    """`, K = 128, 3 pools`: what a run may have chosen itself (`config.auto`), where system and networks have it."""
    values = field_values(run.config.system)
    code = f", K = {values['latent_dim']}" if "latent_dim" in values else ""
    pools = {network.init_arguments.get("pools") for network in run.networks.values()} - {None}
    return code + "".join(f", {number} pools" for number in pools)


def check(run: Run) -> str:
    """The report of `--check`: all that is known before the first step, with a first batch read as a trial."""
    split, bad = run.data.builder.split, []
    for slots in split.slots():
        raw = run.data.reader[Request(0, split.size, slots)]
        batch = run.data.builder.batch(raw)
        bad += raw.bad
    low, high = batch.x.min().item(), batch.x.max().item()
    lines = [describe(run), "", "training data", *survey(run.data.shards), *reading(run)]
    if run.results.validation is not None:
        lines += ["", "validation data", *survey(run.results.validation.shards)]
    else:
        lines += ["", UNMEASURED, f"{HOLD_OUT}, whole groups or recordings where the shards name them"]
    lines += ["", f"first batch: {tuple(batch.x.shape)} on {batch.x.device}, {low:.3g} to {high:.3g}"]
    lines += [f"             {shard}: {key}: {reason}; another sample took its place" for reason, shard, key in bad]
    lines += sight(run)
    lines += ["", "memory", *memory.report(run)]
    lines += [posteriors(run, phase) for phase in run.phases if phase.posteriors is not None and run.steps(phase)]
    return "\n".join([*lines, "", TIME])


def sight(run: Run) -> list[str]:
    """How much of a signal's window the encoder's stages see: slower rhythms than that are seen by its last layers."""
    encoder, spec = run.networks.get("encoder"), run.data.shards.spec
    if spec.kind != "signal" or not isinstance(encoder, ConvEncoder):
        return []
    fields = [f"{size:,}" for size in encoder.receptive_fields()]
    compared, rest = ", ".join(fields[:FEATURE_STAGES]), ", ".join(fields[FEATURE_STAGES:])
    return [f"encoder:     its stages see {compared} samples (those of eq 9), then {rest}, of {spec.shape[-1]:,}"]


def posteriors(run: Run, phase: Phase) -> str:
    """Whether those of a phase's frozen encoder will be kept."""
    return posterior_cache.report(phase, run.config, run.data, run.networks, run.steps(phase))


def reading(run: Run) -> list[str]:
    """How the samples are drawn, and how much memory and cache of remote shards that needs."""
    shards, order, lanes = run.data.shards, run.data.reader.order, run.training.lanes
    ranks = run.data.builder.split.ranks
    assert not isinstance(order, Sequential)  # only evaluation reads sequentially
    if isinstance(order, Mixture):
        shares = ", ".join(
            f"{stream.group.name} {float(share):.1%}" for stream, share in zip(order.streams, order.shares)
        )
        each = "a rank may need every shard"
    else:
        shares = "as the set has them"
        each = f"{lanes // ranks} for each rank" if lanes % ranks == 0 else "every rank reads all: unevenly divided"
    window = run.config.data.shuffle_window
    rows = int(shards.counts.max()) * min(window, len(shards.counts)) * order.lanes
    lines = [
        f"shares      {shares}",
        f"lanes       {lanes} for {ranks} rank{'s' * (ranks > 1)} ({each}), windows of {window} shards",
        f"order       {4 * 2 * rows / 1e6:,.0f} MB in each reading process at most",
    ]
    if shards.store is not None and shards.remote:
        need = shards.cache_need(2 * order.lanes * window)
        limit = shards.store.cache.limit
        lines.append(
            f"cache       {need / 1e9:,.2f} GB of data.cache_bytes={limit / 1e9:,.2f} GB for two windows a lane"
        )
    return lines
