"""Expected quantities from the files that inventories are kept in.

A file becomes a table (`tables.py`: XLSX, ODS, CSV, Parquet; `columns.py` says which columns), its rows become expected
quantities of bins (`reading.py`, with `quantities.py` for numbers and `bins.py` for names), and these are recorded
(`importing.py`). Whatever is guessed on the way is said.
"""
