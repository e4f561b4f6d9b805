"""Turns labelled photos into a model bundle: fit, evaluate, export. The only part of Binwatch that needs torch."""
