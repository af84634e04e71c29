"""Tables of what was found: columns with units, in memory, on disk and as text.  Imports no torch.

==============  ==============================================================================
`stream`        what is watched, and how kinds and variables are called
`schema`        columns: unit, meaning, display; rows as typed dataclasses
`frame`         columns by name under a schema; rows on demand
`history`       all rows of a run in bounded memory
`parquet`       frames as Parquet files and back
`parts`         a folder of Parquet parts, written while a run goes on
`exports`       frames as CSV, JSON or Parquet for other programs
`text`          tables for people
`printable`     text that cannot control a terminal
`atomic`        files that are whole or not there
`regular`       open regular files only
==============  ==============================================================================
"""
