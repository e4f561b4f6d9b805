"""Expected quantities from inventory files.

A file is read as a table (`tables.py`: XLSX, ODS, CSV, Parquet; `columns.py` finds the columns). Its rows become
expected quantities of bins (`reading.py`, with `quantities.py` for numbers and `bins.py` for names), which are recorded
(`importing.py`). All guesses are reported.
"""
