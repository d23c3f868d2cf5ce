"""Relais: the relay between hospital wards and general practitioners."""

__version__ = "0.1.0"
