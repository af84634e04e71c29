"""Make tables and figures from the folders of finished runs.

`runs` reads, `conditions` finds what was varied, `tables` takes means over seeds, `figures` draws.
"""
