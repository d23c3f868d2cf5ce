"""One room per transport. A file here is a `kind` of the configuration; nothing is registered anywhere."""
