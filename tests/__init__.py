"""A package, and not just a folder: a dependency of SageMaker's SDK installs a package of this name, which would win."""
