"""The error for what a user can mend."""


class UserError(ValueError):
    """A mistake that the user can mend; its text names the thing, its value and the rule."""
