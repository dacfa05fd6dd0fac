import hashlib

from alexnet_jax.data.items import Item, ListedSplit, recipe_of


def test_listed_items_come_in_tfds_s_order_from_any_place():
    items = [Item(f'{i:03d}', i % 3, i) for i in range(40)]
    # TFDS sorts by the md5 of the split's name and the key.
    expected = sorted(items, key=lambda item: hashlib.md5(b'train' + item.key.encode()).digest())
    split = ListedSplit('train', items)

    assert len(split) == 40
    for start in (0, 1, 17, 40):
        assert list(split.items(start)) == expected[start:]
    assert list(ListedSplit('validation', items).items()) != expected


def test_a_recipe_hangs_on_every_fact_and_stays_the_same():
    assert recipe_of('folder', 'pets', 95, [('a', 1)]) == recipe_of('folder', 'pets', 95, [('a', 1)])
    others = {recipe_of('folder', 'pets', quality, [('a', size)]) for quality in (94, 95) for size in (1, 2)}
    assert len(others) == 4
