"""A notebook is a function, and notebooks are the pipeline."""
__version__ = "0.1.0"
