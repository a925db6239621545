"""LightningDataModules, data sets, concept banks and the feature cache. Imports nothing else of the zoo."""
