"""Photos and metadata from a bucket or a folder → a folder to train from, with labels, splits and a report."""
