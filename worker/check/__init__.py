"""The command `binwatch check`: compares a folder of photos with an inventory file, and lists the bins that look wrong.

It needs no servers. The list starts with the oddest bin. Counts are recorded as a worker would record them, in a folder
beside the list. So a repeated run counts only new photos, and the monitor can show the records.
"""
