"""`prepare`: turns photos and metadata of a bucket or folder into a data set with labels, splits and a report."""
