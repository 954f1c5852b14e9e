"""Write a finished run as folders that are ready for the Hub, each with a model card.

    python tools/export_hub.py RUN OUT [--license ID]

OUT is the whole pipeline (`Pipeline.from_pretrained(OUT)`); OUT/encoder, OUT/decoder, ... are its networks, each
complete in itself: weights, configuration, preprocessing and card (`Encoder.from_pretrained(OUT/encoder)`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import ConfigError, UserError
from savae_dist.pipeline.export import export


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a finished run as Hub-ready folders with model cards.")
    parser.add_argument("run", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder, or an earlier export to replace")
    parser.add_argument("--license", help="the weights' licence as the Hub names it (apache-2.0, cc-by-4.0, ...)")
    options = parser.parse_args(argv)
    try:
        pipeline = export(options.run, options.out, options.license)
    except (UserError, ValueError) as error:
        print(f"export_hub: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else ConfigError.code
    print(f"{options.out}: the pipeline; {', '.join(f'{options.out / name}' for name in pipeline.networks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
