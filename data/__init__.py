"""LightningDataModules, data sets and the feature cache. Imports nothing else of the zoo."""
