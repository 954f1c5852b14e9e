"""Telling a peer that is gone or out of reach from a bug."""

from __future__ import annotations

import re

import torch.distributed as dist

# Errors of gloo and NCCL when a peer is gone or cannot be reached. Their failed checks ("enforce fail", "invalid
# usage") are bugs and must not match.
GLOO = re.compile(
    r"gloo/gloo/(transport|rendezvous)/"
    r"|^(Application timeout caused pair closure|Connection closed by peer|Gloo connectFullMesh failed|Socket closed"
    r"|Timeout waiting for key|Wait timeout)"
)
NCCL = re.compile(r"remote process exited|system error|time[d ]?-?out|abort|network|connection", re.IGNORECASE)


def lost_peer(error: BaseException) -> str | None:
    """The reason in one line if `error` came from a collective whose peer is gone or out of reach; else None.

    gloo raises bare RuntimeErrors, from `backward` as well. They are recognised by their text, which mostly begins with
    a source line of gloo's transport.
    """
    text = " ".join(str(error).split())
    if isinstance(error, dist.DistStoreError | dist.DistNetworkError):
        found = True
    elif isinstance(error, dist.DistBackendError):
        found = NCCL.search(text) is not None
    else:
        found = type(error) is RuntimeError and "enforce fail" not in text and GLOO.search(text) is not None
    return re.sub(r"^\[\S*\] ", "", text).partition(". ")[0][:150].rstrip(".") if found else None
