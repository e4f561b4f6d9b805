"""A nightly run in transform jobs: plan → claim → model and jobs → answers → records."""
