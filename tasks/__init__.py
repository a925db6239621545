"""LightningModules: what is optimised and measured."""
