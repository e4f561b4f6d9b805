"""Expected quantities from inventory files.

`tables.py` reads a file (XLSX, ODS, CSV, Parquet) as a table, whose columns `columns.py` finds. `reading.py` turns its
rows into expected quantities of bins, with `quantities.py` for numbers and `bins.py` for names, and `importing.py`
records them. All guesses are reported.
"""
