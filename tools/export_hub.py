"""Write a finished run as folders that are ready for the Hub, each with a model card.

    python tools/export_hub.py RUN OUT [--best] [--without-posteriors] [--license ID] [--dataset ORG/NAME ...]
                               [--trainer FILE.py]
                               [--push-to ORG/NAME [--private] [--revision BRANCH] [--create-pr]]

OUT is the whole pipeline (`Pipeline.from_pretrained(OUT)`); OUT/encoder, OUT/decoder, ... are its networks, each
complete in itself: weights, configuration, preprocessing and card (`Encoder.from_pretrained(OUT/encoder)`). A run of a
system of one's own needs the file that enters it, `--trainer FILE.py`. --push-to uploads OUT as one commit, with the
token of `hf auth login` or HF_TOKEN; repeated, it changes nothing. --best takes the networks of the best validation of
a run with keep_best=METRIC, finished or not, in place of the last ones. --without-posteriors leaves out the codes of
single training samples: new ones are drawn from the mixture that was fitted to them, or from the prior.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import UserError
from savae_dist.networks.upload import upload
from savae_dist.pipeline.exports.export import export, told_of_posteriors
from savae_dist.systems import SYSTEMS
from savae_dist.systems.own import enter
from savae_dist.systems.papers import citation_of
from savae_dist.tool_command import ended_by, tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Write a finished run as Hub-ready folders with model cards.")
    parser.add_argument("run", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder, or an earlier export to replace")
    parser.add_argument(
        "--best", action="store_true", help="export the networks of the best validation; needs a run with keep_best"
    )
    parser.add_argument(
        "--without-posteriors", action="store_true", help="leave out the codes of single training samples"
    )
    parser.add_argument("--license", help="the weights' licence as the Hub names it (apache-2.0, cc-by-4.0, ...)")
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="ORG/NAME",
        help="a data set of the Hub that it was trained on",
    )
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    parser.add_argument("--push-to", metavar="ORG/NAME", help="upload OUT to this repository, made where there is none")
    parser.add_argument("--private", action="store_true", help="a repository that is made here is private")
    parser.add_argument("--revision", metavar="BRANCH", help="to upload to, made where there is none")
    parser.add_argument("--create-pr", action="store_true", help="upload as a pull request")
    options = parser.parse_args(argv)
    if not options.push_to and (options.private or options.revision or options.create_pr):
        parser.error("--private, --revision and --create-pr are of --push-to")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        citations = {name: citation_of(system) for name, system in SYSTEMS.items()}
        pipeline = export(
            options.run,
            options.out,
            options.license,
            options.dataset,
            citations,
            best=options.best,
            posteriors=not options.without_posteriors,
        )
        print(f"{options.out}: the pipeline; {', '.join(f'{options.out / name}' for name in pipeline.networks)}")
        if line := told_of_posteriors(pipeline, "--without-posteriors"):
            print(line, flush=True)  # before the upload, which takes long
        pushed = options.push_to and upload(
            options.out,
            options.push_to,
            private=options.private or None,
            revision=options.revision,
            create_pr=options.create_pr,
        )
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "export_hub")
    if pushed:
        print(pushed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
