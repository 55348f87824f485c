"""Data for demonstrations and smoke tests, made on the spot and free of third-party material."""
