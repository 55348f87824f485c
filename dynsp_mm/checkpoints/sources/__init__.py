"""Tables of names, one file a program."""
