"""Names of classes in every form in which people have them, and a dataset's classes among them."""

import json
import pathlib

import pytest
import tensorflow_datasets
from weights.networks import network

from alexnet_jax.errors import InputError
from alexnet_jax.weights.class_names import (
    find_classes,
    find_numbers,
    is_unnamed,
    name_classes,
    read_class_names,
    share_names,
)

THREE = ['n01440764 tench, Tinca tinca', 'n01443537 goldfish, Carassius auratus', 'n01484850 great white shark']


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('\n'.join(THREE) + '\n', THREE),
        ('\ufefftench\r\ngoldfish\r\nshark\r\n\r\n', ['tench', 'goldfish', 'shark']),
        ('/a/airfield 0\n/a/alley 2\n/a/alcove 1\n', ['/a/airfield', '/a/alcove', '/a/alley']),
        ('1: goldfish\n0: tench, Tinca tinca\n', ['tench, Tinca tinca', 'goldfish']),
        (json.dumps(THREE), THREE),
        (json.dumps({'1': 'b', '0': 'a', '2': 'c'}), ['a', 'b', 'c']),
        (json.dumps({'10': 'k'} | {str(i): 'abcdefghij'[i] for i in range(10)}), [*'abcdefghijk']),
        (
            json.dumps({'0': ['n01440764', 'tench'], '1': ['n01443537', 'goldfish']}),
            ['n01440764 tench', 'n01443537 goldfish'],
        ),
        (json.dumps({'dog': 1, 'cat': 0}), ['cat', 'dog']),
        ("{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", ['tench, Tinca tinca', 'goldfish']),
    ],
)
def test_read_class_names_reads_every_form(tmp_path, text, expected):
    (tmp_path / 'names').write_text(text)
    assert read_class_names(str(tmp_path / 'names')) == tuple(expected)


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('', 'holds no names, or an empty one'),
        ('a\n\nb\n', 'or an empty one'),
        ('{"0": "a", "2": "b"}', 'the numbers are not 0, 1'),
        ('{"a": {"b": 1}}', 'holds no names of classes'),
        ('[1, 2]', 'a name is no text'),
        ('[' * 100_000, 'holds no names of classes'),
        ('{0: __import__("os").system("touch RAN")}', 'holds no names of classes'),
        ('n02119789 1 kit_fox\nn02100735 2 English_setter\n', "the development kit's numbers"),
    ],
)
def test_read_class_names_refuses_what_holds_none(tmp_path, text, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('names').write_text(text)
    with pytest.raises(InputError, match=f'--classes=names .*{says}.*give one name a line') as refused:
        read_class_names('names')
    assert len(str(refused.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['names']


def test_read_class_names_knows_imagenet():
    """The synsets in sorted order, which is that of every published network: 0 is the tench, 999 toilet tissue."""
    names = read_class_names('imagenet2012')
    assert len(names) == 1000 and list(names) == sorted(names)
    assert (names[0], names[1], names[207], names[999]) == ('n01440764', 'n01443537', 'n02099601', 'n15075141')


def test_name_classes_wants_a_name_for_each_output(tmp_path):
    (tmp_path / 'names').write_text('a\nb\nc\n')
    foreign = network('one_weird_trick', width=0.03125)
    assert name_classes(foreign, str(tmp_path / 'names')).classes == ('a', 'b', 'c')
    assert name_classes(foreign, None) is foreign
    with pytest.raises(InputError, match='imagenet2012 names 1,000 classes, and runs/some, step 7 has 3 outputs'):
        name_classes(foreign, 'imagenet2012')
    with pytest.raises(InputError, match='cannot be read: No such file'):
        name_classes(foreign, str(tmp_path / 'none'))


def test_find_classes_goes_by_name_synset_and_synonym():
    package = pathlib.Path(tensorflow_datasets.__file__).parent
    imagenette = (package / 'image_classification/imagenette_labels.txt').read_text().split()
    # github.com/fastai/imagenette: the ten among ImageNet's 1000, as everybody numbers them.
    expected = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert find_classes(imagenette, read_class_names('imagenet2012')) == expected
    assert find_classes(['goldfish', 'Tinca_tinca'], THREE) == [1, 0]
    assert find_classes(['n01484850', 'n01440764 something'], THREE) == [2, 0]
    assert find_classes(['n01443537_goldfish', 'Great white shark'], THREE) == [1, 2]
    assert share_names(['cat', 'Tinca_tinca'], THREE) and not share_names(['cat', 'n014407640'], THREE)
    assert find_classes(['airfield'], ['/a/alley', '/a/airfield']) == [1]
    assert find_classes(['cat'], THREE) is None
    assert find_classes(['tench', 'n01440764'], THREE) is None  # both the same one
    assert find_classes(['crane'], ['n02012849 crane', 'n03126707 crane']) is None  # a bird, a machine
    assert find_numbers(['0', '10', '2'], 11) == [0, 10, 2] and find_numbers(['0', '10', '2'], 10) is None
    assert find_numbers(['1', '10', '2'], 11) is None  # from 1?
    assert find_numbers(['0', '01', '1'], 3) is None and find_numbers(['0', 'cat'], 3) is None
    assert not is_unnamed(sorted(map(str, range(12)))) and is_unnamed([str(i) for i in range(12)])
