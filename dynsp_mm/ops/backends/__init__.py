"""Implementations of the steps of prepared forms, one file each."""
