"""Errors that tell a user what to change."""


class UserError(ValueError):
    """A wrong value that a user gave, described in terms of what the user wrote."""
