"""Results as tables, comparisons, plots, equations and reports."""
