"""A folder of photos and an inventory file → a list of the bins that look wrong, the oddest first. No servers.

What is counted goes into records like a worker's, in a folder beside the list: started again, only what is new is
counted, and the monitor's pages show the same.
"""
