"""Hydra groups that mirror the folders; the model files are the catalogue."""
