"""Accuracy: rows that are trained and tested, and the tables and plots of docs/RESULTS.md."""
