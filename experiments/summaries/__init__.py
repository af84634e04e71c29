"""From the folders of finished runs to tables and figures, without handwork.

`runs` reads, `conditions` finds what was varied, `tables` takes means over seeds, `figures` draws.
"""
