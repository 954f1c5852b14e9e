"""Shards -> batches: an index of where samples lie, an order that is arithmetic, and a reader."""

from savae_dist.data.index.attribute_table import AttributeTable, attributes_of
from savae_dist.data.index.recordings import GROUP, RECORDING, recordings, told_names
from savae_dist.data.index.report import check_usable, index_set, survey
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.shared import on_both_sides
from savae_dist.data.order.hold_out import hold_out, sequential
from savae_dist.data.order.mixture import Mixture, Proportions, SampleOrder, training_order
from savae_dist.data.order.order import Order, Request, Sequential, evaluation_requests
from savae_dist.data.packing.digits import demo_shards
from savae_dist.data.packing.pack import pack, summary
from savae_dist.data.packing.sources import read_arrays
from savae_dist.data.reading.loading import loader
from savae_dist.data.reading.reader import RawBatch, Reader
from savae_dist.data.remote.store import Store

__all__ = [
    "GROUP",
    "RECORDING",
    "AttributeTable",
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
    "attributes_of",
    "check_usable",
    "demo_shards",
    "evaluation_requests",
    "hold_out",
    "index_set",
    "loader",
    "on_both_sides",
    "pack",
    "read_arrays",
    "recordings",
    "sequential",
    "summary",
    "survey",
    "told_names",
    "training_order",
]
