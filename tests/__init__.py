"""A package, not just a folder: a dependency of SageMaker's SDK installs one of this name, which would hide ours."""
