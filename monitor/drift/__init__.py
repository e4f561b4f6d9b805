"""Drift detection: do photos, counts and expected quantities still resemble the reference?"""
