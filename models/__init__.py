"""nn.Modules, one idea per file. Start at `zoo.models.contract`."""
