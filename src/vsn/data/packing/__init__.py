"""Pack data sets into few files that are fast to read sparsely (`vsn data pack`)."""
