import hashlib

from alexnet_jax.data.preparing.dataset_spec import Example, ListedSplit, hash_recipe


def test_listed_split_has_tfds_order_from_any_index():
    examples = [Example(f'{i:03d}', i % 3, i) for i in range(40)]
    # TFDS sorts by the md5 of the split's name and the key.
    expected = sorted(examples, key=lambda example: hashlib.md5(b'train' + example.key.encode()).digest())
    split = ListedSplit('train', examples)

    assert len(split) == 40
    for start in (0, 1, 17, 40):
        assert list(split.iter_examples(start)) == expected[start:]
    assert list(ListedSplit('validation', examples).iter_examples()) != expected


def test_hash_recipe_depends_on_every_fact():
    assert hash_recipe('folder', 'pets', 95, [('a', 1)]) == hash_recipe('folder', 'pets', 95, [('a', 1)])
    others = {hash_recipe('folder', 'pets', quality, [('a', size)]) for quality in (94, 95) for size in (1, 2)}
    assert len(others) == 4
