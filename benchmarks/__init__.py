"""What only maintainers run: measurements, experiments, and the pages made of them."""
