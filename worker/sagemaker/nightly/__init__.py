"""Nightly runs in transform jobs: plan → claim → model and jobs → answers → records."""
