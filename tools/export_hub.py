"""Write a finished run as folders that are ready for the Hub, each with a model card.

    python tools/export_hub.py RUN OUT [--license ID] [--trainer FILE.py]

OUT is the whole pipeline (`Pipeline.from_pretrained(OUT)`); OUT/encoder, OUT/decoder, ... are its networks, each
complete in itself: weights, configuration, preprocessing and card (`Encoder.from_pretrained(OUT/encoder)`). A run of a
system of one's own needs the file that enters it, `--trainer FILE.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import ConfigError, UserError
from savae_dist.pipeline.export import export
from savae_dist.systems import SYSTEMS
from savae_dist.systems.own import enter
from savae_dist.systems.papers import citation_of


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a finished run as Hub-ready folders with model cards.")
    parser.add_argument("run", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder, or an earlier export to replace")
    parser.add_argument("--license", help="the weights' licence as the Hub names it (apache-2.0, cc-by-4.0, ...)")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    options = parser.parse_args(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        citations = {name: citation_of(system) for name, system in SYSTEMS.items()}
        pipeline = export(options.run, options.out, options.license, citations)
    except (UserError, ValueError) as error:
        print(f"export_hub: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else ConfigError.code
    print(f"{options.out}: the pipeline; {', '.join(f'{options.out / name}' for name in pipeline.networks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
