"""A local page of a trained pipeline: move through its latent plane, reconstruct a file, generate by class.

    python tools/demo.py PIPELINE [--port N] [--trainer FILE.py]

PIPELINE is a run, one of its checkpoints, a saved or exported folder, or a Hub id. The page is served to this machine
alone and loads nothing from elsewhere. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch

from savae_dist.errors import UserError
from savae_dist.pipeline.exports.gallery import HOST, server_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems.own import enter
from savae_dist.tool_command import ended_by, tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="A local page of a trained pipeline.")
    parser.add_argument("pipeline", help="a run's folder, a checkpoint, a saved pipeline, or a repository on the Hub")
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port of the page; 0: any free one (%(default)s)"
    )
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        server = server_of(Pipeline.from_pretrained(options.pipeline, device=device), options.port)
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "demo")
    with server, suppress(KeyboardInterrupt):
        print(f"http://{HOST}:{server.server_port}/", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
