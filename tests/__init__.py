"""Make `tests` a package: a dependency of SageMaker's SDK installs another of this name, which would hide it."""
