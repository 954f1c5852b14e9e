"""Shards -> batches: an index of where samples lie, an order that is arithmetic, and a reader of mapped files."""

from savae_dist.data.demo import demo_shards
from savae_dist.data.mixture import Mixture, Proportions, SampleOrder, training_order
from savae_dist.data.order import Order, Request, Sequential, evaluation_requests
from savae_dist.data.pack import pack, summary
from savae_dist.data.reader import RawBatch, Reader, loader
from savae_dist.data.shards import Shards
from savae_dist.data.sources import read_arrays
from savae_dist.data.store import Store
from savae_dist.data.survey import index_set, survey

__all__ = [
    "Mixture",
    "Order",
    "Proportions",
    "RawBatch",
    "Reader",
    "Request",
    "SampleOrder",
    "Sequential",
    "Shards",
    "Store",
    "demo_shards",
    "evaluation_requests",
    "index_set",
    "loader",
    "pack",
    "read_arrays",
    "summary",
    "survey",
    "training_order",
]
