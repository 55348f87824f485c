"""Speed and memory: one command a result, and the tables of docs/PERFORMANCE.md."""
