"""The clauses of the strategy contract; the first line of each one's docstring is the law.

Importing this package enters them in `modal_ntk.testing.trial.CLAUSES`.
"""

from modal_ntk.testing.clauses import care, edges, form, modal, refusals, uses

__all__ = ["care", "edges", "form", "modal", "refusals", "uses"]
