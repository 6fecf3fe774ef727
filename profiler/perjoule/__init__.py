"""perjoule: what an open language model costs to run on the machine in front of you."""

__version__ = "0.1.0"
