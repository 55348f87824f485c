"""Reading annotation files in COCO format, and saying what is wrong with them."""

import json

COCO_KEYS = ('images', 'annotations', 'categories')


def load_coco(path):
    """Return (content of a COCO file, None) or (None, what is wrong with it)."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        return None, f'is not JSON: line {error.lineno}, column {error.colno}: {error.msg}'
    except UnicodeDecodeError as error:
        return None, f'is not JSON: byte {error.start} is no UTF-8 text'
    if not isinstance(content, dict):
        return None, (
            f'is not in COCO format: its top level is a {type(content).__name__}, not '
            f'an object with {", ".join(COCO_KEYS)}'
        )
    return content, None


def summarise_coco(path):
    """Return (keys, category names and first file name, None) or (None, problem)."""
    content, problem = load_coco(path)
    if problem:
        return None, problem
    names = [item.get('name') for item in content.get('categories') or ()]
    images = content.get('images') or [{}]
    return dict(
        keys=set(content),
        names=names,
        file_name=images[0].get('file_name'),
        num_images=len(content.get('images') or ()),
        num_annotations=len(content.get('annotations') or ()),
    ), None
