"""Walking through configs."""


def leaf_datasets(dataset, key='dataset'):
    """Yield (dotted config key, config) of each dataset inside wrappers such as ConcatDataset."""
    if isinstance(dataset, (list, tuple)):
        for i, item in enumerate(dataset):
            yield from leaf_datasets(item, f'{key}.{i}')
    elif isinstance(dataset, dict):
        nested = [name for name in ('dataset', 'datasets') if dataset.get(name) is not None]
        for name in nested:
            yield from leaf_datasets(dataset[name], f'{key}.{name}')
        if not nested:
            yield key, dataset
