"""Every argument check and its message, once: what was expected, what was got, what to do."""

from modal_ntk.checks.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_n_instances,
    check_number,
    check_positive,
    check_query_strategy,
    check_random_state,
    check_rows,
)
from modal_ntk.checks.labels import check_labels
from modal_ntk.checks.parameters import check_parameters
from modal_ntk.checks.results import check_outputs, check_picks
from modal_ntk.checks.samples import check_same_features, check_samples, is_dataset, n_rows
from modal_ntk.checks.wording import check_installed, expected, one_line, unknown_name

__all__ = [
    "check_choice",
    "check_flag",
    "check_installed",
    "check_integer",
    "check_labels",
    "check_n_instances",
    "check_number",
    "check_outputs",
    "check_parameters",
    "check_picks",
    "check_positive",
    "check_query_strategy",
    "check_random_state",
    "check_rows",
    "check_same_features",
    "check_samples",
    "expected",
    "is_dataset",
    "n_rows",
    "one_line",
    "unknown_name",
]
