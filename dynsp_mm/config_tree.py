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


def without_pretrained(config):
    """A copy of a model's config in which no part names weights to start from."""
    if isinstance(config, (list, tuple)):
        return type(config)(without_pretrained(item) for item in config)
    if not isinstance(config, dict):
        return config
    # Classes of the libraries read entries of a config as attributes.
    copy = type(config)({key: without_pretrained(value) for key, value in config.items()
                         if key != 'pretrained'})
    starts = config.get('init_cfg')
    starts = starts if isinstance(starts, (list, tuple)) else [starts]
    if any(start and start.get('type') == 'Pretrained' for start in starts):
        copy['init_cfg'] = None
    return copy
