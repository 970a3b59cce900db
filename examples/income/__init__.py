"""Income above a threshold, from census tables: ACSIncome (a file) or Adult (from OpenML)."""
