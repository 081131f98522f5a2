"""What a person reads: tables, pages, pictures.

For notebooks:

    from moe_sweeps.reports import open_suite

    suite = open_suite()  # tables, figures, claims: analysis/ shows how
"""

from moe_sweeps.reports.suite import Suite, open_suite

__all__ = ["Suite", "open_suite"]
