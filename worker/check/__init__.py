"""A folder of photos and an inventory file → a list of the bins that look wrong, the oddest first. Needs no servers.

Counts are recorded as a worker records them, in a folder beside the list: a repeated run counts only new photos, and
the monitor's pages can show the records.
"""
