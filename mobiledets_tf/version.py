"""The project's version, defined only here; setup.py reads it without importing the package."""

__version__ = "0.1.0"
# Stored in every artefact as `written_by`.
WRITTEN_BY = f"mobiledets-tf {__version__}"
