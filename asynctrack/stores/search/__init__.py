"""MLflow's search language over our entities: filters, orders, pages.

Pure: nothing is read here. What is looked at comes through a *getter*, ``get(kind, key)``, with kind "metric",
"param", "tag" or "attribute", so that a store reads only what a search asks for.
"""

from asynctrack.stores.search.filter import Clause, matches, parse_experiment_filter, parse_run_filter
from asynctrack.stores.search.grammar import Getter, experiment_getter, info_getter, run_getter
from asynctrack.stores.search.order import Order, order, parse_experiment_order, parse_run_order
from asynctrack.stores.search.pages import MAX_RESULTS, check_max_results, page, page_at, page_start

__all__ = [
    "MAX_RESULTS",
    "Clause",
    "Getter",
    "Order",
    "check_max_results",
    "experiment_getter",
    "info_getter",
    "matches",
    "order",
    "page",
    "page_at",
    "page_start",
    "parse_experiment_filter",
    "parse_experiment_order",
    "parse_run_filter",
    "parse_run_order",
    "run_getter",
]
