"""Folders as people have them are prepared, or one line says what is to be done; nothing is passed over unsaid."""

import os
import re
import subprocess
import unicodedata

import pytest
from archives import SYNSETS, VALIDATION_SYNSETS, photograph, validation_name

from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing.folder import make_folder_spec
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.errors import InputError

PHOTO = photograph(0, size=(16, 16))  # the listing reads none


def write(root, *files):
    """Writes files, images but for tables of 'NAME=CONTENT'."""
    for file in files:
        name, _, content = file.partition('=')
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if content else PHOTO)
    return root


def classes(place, *, count=1, names=('cat', 'dog')):
    return [f'{place}/{name}/{i}.jpg'.lstrip('/') for name in names for i in range(count)]


def spec_of(root, **options):
    return make_folder_spec(root, name='pets', record_size=32, **options)


def listed(spec, split):
    """{where the user finds the image: class} of a split."""
    examples = spec.splits[split].iter_examples()
    return {spec.show_key(split, example.key): spec.classes[example.label] for example in examples}


def refusal(root, **options):
    with pytest.raises(InputError) as error:
        spec_of(root, **options)
    assert '\n' not in str(error.value)
    return str(error.value)


# Names of splits


@pytest.mark.parametrize('name', ['val', 'valid', 'dev', 'Val', 'VALIDATION'])
def test_folder_spec_takes_other_names_of_validation(tmp_path, name):
    spec = spec_of(write(tmp_path, *classes('train'), *classes(name), *classes('test')))

    assert list(listed(spec, 'validation')) in (
        [f'{name}/cat/0.jpg', f'{name}/dog/0.jpg'],
        [f'{name}/dog/0.jpg', f'{name}/cat/0.jpg'],
    )
    assert list(spec.splits) == ['train', 'validation', 'test']
    assert f'{name}/ is taken as the validation split' in spec.notes


def test_folder_spec_never_takes_test_for_validation(tmp_path):
    root = write(tmp_path / 'my pets', *classes('training', count=2), *classes('testing'))

    message = refusal(root)
    assert 'has no validation/ folder (found: testing, training); pass --validation_share=0.1' in message
    drawn = spec_of(root, validation_share=0.1)
    assert listed(drawn, 'test').keys() == {'testing/cat/0.jpg', 'testing/dog/0.jpg'}
    assert {split: len(examples) for split, examples in drawn.splits.items()} == {
        'train': 2,
        'validation': 2,
        'test': 2,
    }
    subprocess.run(re.search('`(.*)`', message)[1], shell=True, check=True)  # the other remedy
    assert list(spec_of(root).splits) == ['train', 'validation']
    assert 'testing/ is the folder of the validation split: taken once' in spec_of(root).notes


def test_folder_spec_refuses_two_validation_splits(tmp_path):
    root = write(tmp_path, *classes('train'), *classes('val'), *classes('dev'))
    assert 'has dev/ and val/, either of them a validation split: move or rename all but one' in refusal(root)
    (root / 'dev').rename(root / 'spare')
    assert 'left out, in no split (1): spare' in spec_of(root).notes


# Drawing


@pytest.mark.parametrize('place', ['', 'train', 'pictures/train'])
def test_validation_share_is_drawn_from_each_class_by_seed(tmp_path, place):
    names = {'cat': 30, 'dog': 14, 'owl': 2, 'yak': 1}
    root = write(tmp_path, *(file for name, n in names.items() for file in classes(place, count=n, names=[name])))
    assert 'pass --validation_share=0.1' in refusal(root)

    spec = spec_of(root, validation_share=0.1)
    train, validation = listed(spec, 'train'), listed(spec, 'validation')
    assert sorted(validation.values()) == ['cat'] * 3 + ['dog', 'owl']  # a tenth, one at least, never all
    assert train.keys() | validation.keys() == {str(p.relative_to(root)) for p in root.rglob('*.jpg')}
    assert not train.keys() & validation.keys()
    assert 'validation/ has no images of yak' in spec.notes
    assert listed(spec_of(root, validation_share=0.1), 'validation') == validation
    assert listed(spec_of(root, validation_share=0.1, validation_seed=1), 'validation') != validation
    (root / place / 'dog' / '99.jpg').write_bytes(PHOTO)  # another class is drawn as before
    again = listed(spec_of(root, validation_share=0.1), 'validation')
    assert {path for path in again if 'cat' in path} == {path for path in validation if 'cat' in path}


def test_validation_share_is_refused_beside_a_validation_split(tmp_path):
    root = write(tmp_path, *classes('train'), *classes('val'))
    assert 'has val/ already: leave --validation_share out' in refusal(root, validation_share=0.1)


# Testing weights only


def test_validation_only_makes_a_dataset_without_training_split(tmp_path):
    root = write(tmp_path / 'images', *classes('val'))
    message = refusal(root)
    assert 'has no train/ folder (found: val); pass --validation_only if it is only to test weights' in message

    prepare(spec_of(root, validation_only=True), data_dir=tmp_path / 'data', workers=1)
    dataset = open_dataset('pets', data_dir=tmp_path / 'data')
    assert (dataset.classes, dataset.examples('validation'), dataset.record_size) == (('cat', 'dog'), 2, 32)
    with pytest.raises(
        InputError, match='was prepared to test weights only: prepare it again without --validation_only'
    ):
        dataset.records('train')
    write(root, *classes('train'))
    assert 'left out, in no split (1): train' in spec_of(root, validation_only=True).notes


# Layouts


CAT, DOG = SYNSETS[7], SYNSETS[3]  # sorted: the dog is first
NUMBERS = [VALIDATION_SYNSETS.index(CAT) + 1, VALIDATION_SYNSETS.index(DOG) + 1]
FLAT = [f'val/{validation_name(number)}' for number in NUMBERS]
TRUTH = [str(SYNSETS.index(synset) * 7 % 1000 + 1) for synset in VALIDATION_SYNSETS]  # any numbering will do
LAYOUTS = {
    'imagenet, flat validation': ([*classes('train', names=[CAT, DOG]), *FLAT], FLAT),
    'imagenet with its list': (
        [*classes('train', names=[CAT, DOG]), *FLAT, 'ILSVRC2012_validation_ground_truth.txt=' + '\n'.join(TRUTH)],
        FLAT,
    ),
    'kaggle': (
        [
            *classes('ILSVRC/Data/CLS-LOC/train', names=[CAT, DOG]),
            *(f'ILSVRC/Data/CLS-LOC/val/{name}.JPEG' for name in 'ab'),
            f'LOC_val_solution.csv=ImageId,PredictionString\nb,{DOG} 1 2 3 4 {DOG} 5 6 7 8\na,{CAT} 1 2 3 4\n',
            f'LOC_train_solution.csv=ImageId,PredictionString\n{CAT}_1,{CAT} 1 2 3 4\n',
            'LOC_sample_submission.csv=ImageId,PredictionString\na,1 0 0 0 0\nb,1 0 0 0 0\n',
            'ILSVRC/Annotations/CLS-LOC/val/a.xml=<annotation/>',
        ],
        ['ILSVRC/Data/CLS-LOC/val/a.JPEG', 'ILSVRC/Data/CLS-LOC/val/b.JPEG'],
    ),
    'tiny imagenet': (
        [
            *(f'tiny/train/{name}/images/{name}_0.JPEG' for name in (CAT, DOG)),
            *(f'tiny/train/{name}/{name}_boxes.txt={name}_0.JPEG\t0\t0\t1\t1' for name in (CAT, DOG)),
            *(f'tiny/val/images/val_{i}.JPEG' for i in range(2)),
            f'tiny/val/val_annotations.txt=val_0.JPEG\t{CAT}\t0\t0\t1\t1\nval_1.JPEG\t{DOG}\t0\t0\t1\t1\n',
            'tiny/test/images/test_0.JPEG',
            f'tiny/wnids.txt={CAT}\n{DOG}\n',
        ],
        ['tiny/val/images/val_0.JPEG', 'tiny/val/images/val_1.JPEG'],
    ),
    'a table with a header': (
        [
            *classes('train', names=[CAT, DOG]),
            'val/x.png',
            'val/y.png',
            f'val/truth.csv=label,file\n{DOG},y.png\n{CAT},x.png',
        ],
        ['val/x.png', 'val/y.png'],
    ),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_folder_spec_reads_layouts_with_flat_validation(tmp_path, layout):
    files, (cat, dog) = LAYOUTS[layout]
    spec = spec_of(write(tmp_path, *files))

    assert spec.classes == (DOG, CAT)
    assert listed(spec, 'validation') == {cat: CAT, dog: DOG}
    assert sorted(listed(spec, 'train').values()) == [DOG, CAT]
    assert spec.unusable == ()
    assert any('/ are from ' in note for note in spec.notes)


def test_folder_spec_reads_flat_validation_archive_alone(tmp_path):
    root = write(tmp_path, *(file.removeprefix('val/') for file in FLAT))
    assert 'or --validation_only to test weights on all' in refusal(root)
    spec = spec_of(root, validation_only=True)
    assert sorted(listed(spec, 'validation').values()) == [DOG, CAT]


def test_folder_spec_refuses_an_official_list_of_another_order(tmp_path):
    truth = ['1'] * len(VALIDATION_SYNSETS)  # both images of one class
    root = write(
        tmp_path,
        *classes('train', names=[CAT, DOG]),
        *FLAT,
        'ILSVRC2012_validation_ground_truth.txt=' + '\n'.join(truth),
    )
    message = refusal(root)
    assert 'has other classes than ImageNet for images of these names' in message
    (root / 'labels.csv').write_text(f'{FLAT[0][4:]},{DOG}\n{FLAT[1][4:]},{CAT}\n')  # as the message says
    assert listed(spec_of(root), 'validation') == {FLAT[0]: DOG, FLAT[1]: CAT}


def test_folder_spec_leaves_out_and_counts_images_of_other_classes(tmp_path):
    names = [CAT, SYNSETS[9], DOG]
    files = [f'val/{validation_name(VALIDATION_SYNSETS.index(name) + 1)}' for name in names]
    spec = spec_of(write(tmp_path, *classes('train', names=[CAT, DOG]), *files))
    assert sorted(listed(spec, 'validation').values()) == [DOG, CAT]
    assert f'val/: 1 images of 1 classes that train/ has not ({SYNSETS[9]}) are left out' in spec.notes


def test_folder_spec_names_images_that_a_table_lacks(tmp_path):
    table = 'val/truth.csv=a.png,cat\nb.png,dog\n'
    spec = spec_of(write(tmp_path, *classes('train'), 'val/a.png', 'val/b.png', 'val/c.png', table))
    assert spec.unusable == (f'val/c.png: no class in {tmp_path}/val/truth.csv',)


def test_folder_spec_refuses_tables_that_contradict_each_other(tmp_path):
    tables = ['one.csv=a.png,cat\nb.png,dog\n', 'two.txt=a.png dog\nb.png cat\n']
    message = refusal(write(tmp_path, *classes('train'), 'val/a.png', 'val/b.png', *tables))
    assert 'give images different classes: move one of them elsewhere' in message


def test_folder_spec_does_not_take_a_form_for_answers(tmp_path):
    form = 'sampleSubmission.csv=id,label\n1,cat\n2,dog\n'
    spec = spec_of(write(tmp_path, *classes('train'), *classes('val'), 'test/1.jpg', 'test/2.jpg', form))
    assert list(spec.splits) == ['train', 'validation']
    assert 'test/ has no class folders and no labels: left out' in spec.notes


def test_folder_spec_reads_the_oxford_pets(tmp_path):
    lists = {
        'trainval': ['Abyssinian_1', 'Abyssinian_2', 'great_pyrenees_1', 'great_pyrenees_2'],
        'test': ['Abyssinian_3'],
    }
    numbers = {'Abyssinian': '1 1 1', 'great_pyrenees': '16 2 9'}
    tables = [
        f'annotations/{name}.txt=' + '\n'.join(f'{stem} {numbers[stem[:-2]]}' for stem in stems)
        for name, stems in lists.items()
    ]
    root = write(
        tmp_path, *(f'images/{stem}.jpg' for stems in lists.values() for stem in stems), *tables, 'images/odd_1.jpg'
    )

    assert 'pass --validation_share=0.1' in refusal(root)
    spec = spec_of(root, validation_share=0.5)
    assert spec.classes == ('Abyssinian', 'great_pyrenees')
    assert listed(spec, 'test') == {'images/Abyssinian_3.jpg': 'Abyssinian'}
    assert sorted(listed(spec, 'train').values()) == sorted(listed(spec, 'validation').values()) == list(spec.classes)
    assert 'left out, in no split (1): images/odd_1.jpg' in spec.notes


@pytest.mark.parametrize('wrapper', ['101_ObjectCategories', 'images', 'food-101/images'])
def test_folder_spec_reads_class_folders_beside_other_things(tmp_path, wrapper):
    top = wrapper.rpartition('/')[0]
    beside = f'{top}/Annotations/cat/0.mat=x'.lstrip('/'), f'{top}/README.txt=x'.lstrip('/')
    spec = spec_of(write(tmp_path, *classes(wrapper, count=3), *beside), validation_share=0.3)
    assert spec.classes == ('cat', 'dog')
    assert any(note.startswith('left out, in no split (2): ') for note in spec.notes)


@pytest.mark.parametrize('names', ['Great Dane_{}.jpg {} cat_{}.jpg', 'a.{}.jpg {} b.{}.jpg'])
def test_refusal_of_flat_folder_has_the_line_that_makes_class_folders(tmp_path, names):
    first, second = names.split(' {} ')
    flat = [name.format(i) for name in (first, second) for i in range(3)]
    root = write(tmp_path / "today's photos", *flat)
    message = refusal(root)
    assert 'has no class folders, and no table beside it names the classes of 6 files' in message

    command, folder = re.search('`(.*)`, then --images=(.*) --validation_share=0.1;', message).groups()
    subprocess.run(['bash', '-c', command], check=True)
    assert spec_of(folder, validation_share=0.1).classes == tuple(name[: -len('_{}.jpg')] for name in (first, second))
    (root / 'labels.csv').write_text(''.join(f'{name},{name[0]}\n' for name in flat))  # the other way
    assert spec_of(root, validation_share=0.1).classes == (first[0], second[0])


def test_refusal_of_what_is_not_unpacked_names_the_archive(tmp_path):
    (tmp_path / 'n01440764.tar').write_bytes(b'')
    assert 'has no class folders; unpack n01440764.tar first, expected' in refusal(tmp_path)
    (tmp_path / 'ILSVRC2012_img_val.tar').write_bytes(b'')
    assert f'; --dataset=imagenet2012 --manual_dir={tmp_path} reads its archives as they are' in refusal(tmp_path)
    assert 'is a file; --images takes a folder' in refusal(tmp_path / 'n01440764.tar')


# Links


def test_folder_spec_follows_links(tmp_path):
    root = write(tmp_path / 'images', *classes('train', count=2), *classes('validation'))
    write(tmp_path, 'store/a.jpg', 'store/deep/b.jpg', 'owl/0.jpg', 'owl/1.jpg')
    (root / 'train/cat/more').symlink_to(tmp_path / 'store')
    (root / 'train/owl').symlink_to(tmp_path / 'owl')
    (root / 'train/dog/2.jpg').symlink_to(tmp_path / 'store/a.jpg')
    (tmp_path / 'linked').symlink_to(root)
    spec = spec_of(tmp_path / 'linked')

    assert sorted(listed(spec, 'train').values()) == ['cat'] * 4 + ['dog'] * 3 + ['owl'] * 2
    assert (spec.unusable, spec.notes) == ((), ('validation/ has no images of owl',))


def test_folder_spec_follows_each_folder_once_and_says_so(tmp_path):
    root = write(tmp_path, *classes('train', count=2), *classes('validation'), 'train/cat/in/2.jpg')
    for name, target in {'loop': '..', 'root': '../../..', 'self': '.', 'twin': 'in', 'in/up': '../in'}.items():
        (root / 'train/cat' / name).symlink_to(target)
    spec = spec_of(root)

    assert sorted(listed(spec, 'train').values()) == ['cat'] * 3 + ['dog'] * 2
    (note,) = spec.notes
    assert note.startswith('not followed, links to folders that are read already (5): ')


def test_folder_spec_names_all_that_it_cannot_read(tmp_path, monkeypatch):
    root = write(
        tmp_path,
        *classes('train'),
        *classes('validation'),
        'train/loose.jpg',
        'train/list.txt=x',
        'train/cat/locked/1.jpg',
    )
    (root / 'train/cat/gone.jpg').symlink_to(tmp_path / 'nowhere')
    (root / 'train/cat/self').symlink_to('self')
    (root / 'train/owl').symlink_to(tmp_path / 'nowhere')
    os.mkfifo(root / 'train/cat/pipe')
    scandir = os.scandir

    def refuse(folder):  # as the system does a user other than root
        if os.fspath(folder).endswith('locked'):
            raise PermissionError(13, 'Permission denied')
        return scandir(folder)

    monkeypatch.setattr(os, 'scandir', refuse)
    spec = spec_of(root)
    assert set(spec.unusable) == {
        'train/cat/gone.jpg: a link to nothing',
        'train/cat/self: cannot be looked at: Too many levels of symbolic links',
        'train/owl: a link to nothing',
        'train/cat/pipe: neither a file nor a folder',
        'train/cat/locked: cannot be listed: Permission denied',
        'train/loose.jpg: in no class folder',
    }
    assert spec.notes == ('left out, in no split (1): train/list.txt',)


# Names


def test_folder_spec_reads_files_whose_names_are_not_utf8(tmp_path):
    root = write(tmp_path / 'images', *classes('train'), *classes('validation'))
    os.rename(root / 'train/cat/0.jpg', os.fsencode(root / 'train/cat/') + b'/caf\xe9.jpg')
    done = prepare(spec_of(root), data_dir=tmp_path / 'data', workers=1)
    assert (done.splits['train'], done.notes[1]) == (
        2,
        r'read, though their names are not UTF-8 (1): train/cat/caf\xe9.jpg',
    )

    with open(os.fsencode(root / 'train/cat/') + b'/na\xefve.jpg', 'wb'):
        pass
    with pytest.raises(InputError, match=r'1 unusable files \(train/cat/na\\xefve.jpg: not an image\)'):
        prepare(spec_of(root), data_dir=tmp_path / 'data', overwrite=True, workers=1)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [(b'caf\xe9', 'is not UTF-8'), (b'cat ', 'begins or ends with a blank'), (b"a\n\\'b", 'has several lines')],
)
def test_refusal_of_a_class_name_has_the_line_that_renames_it(tmp_path, name, reason):
    root = write(tmp_path, *classes('train'), *classes('validation'))
    os.rename(root / 'train/dog', os.fsencode(root / 'train') + b'/' + name)
    message = refusal(root)
    assert reason in message
    command = message.partition('as in bash: ')[2].replace('NEW_NAME', str(root / 'train/dog'))
    subprocess.run(['bash', '-c', command], check=True)
    assert spec_of(root).classes == ('cat', 'dog')


def test_folder_spec_takes_composed_and_decomposed_names_for_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, 'été') for form in ('NFC', 'NFD'))
    assert composed != decomposed
    root = write(
        tmp_path, 'train/cat/0.jpg', f'train/{decomposed}/0.jpg', f'train/{composed}/1.jpg', f'val/{composed}/0.jpg'
    )
    spec = spec_of(root)
    assert spec.classes == ('cat', composed)
    assert sorted(listed(spec, 'train').values()) == ['cat', composed, composed]
    assert list(listed(spec, 'validation').values()) == [composed]


def test_folder_spec_leaves_out_what_systems_keep_and_says_so(tmp_path):
    junk = [
        '__MACOSX/train/cat/._0.jpg',
        'train/__MACOSX/cat/._0.jpg',
        'train/.DS_Store',
        'train/cat/Thumbs.db',
        'val/@eaDir/x.jpg',
    ]
    spec = spec_of(write(tmp_path, *classes('train'), *classes('val'), *junk))
    assert (spec.classes, spec.unusable) == (('cat', 'dog'), ())
    (note,) = (note for note in spec.notes if 'a system' in note)
    assert note.startswith('left out, hidden or kept by a system (5): __MACOSX, train/.DS_Store, train/__MACOSX')


def test_folder_spec_takes_images_by_their_extension_or_content(tmp_path):
    taken = ['a.jfif', 'b.JPE', 'c.dib', 'd.pgm', 'e', 'f.jpg_large']
    others = {
        'g.heic': 'HEIC, which is not',
        'h.dng': 'raw image, which is not',
        'i.svg': 'SVG, which',
        'j.mat': 'not an image ext',
    }
    files = [f'train/cat/{name}' for name in taken] + [f'train/cat/{name}=x' for name in others]
    spec = spec_of(write(tmp_path, *classes('train'), *classes('val'), *files))
    assert {f'train/cat/{name}' for name in taken} < listed(spec, 'train').keys()
    assert len(spec.unusable) == len(others)
    write(tmp_path, 'train/owl/0.heic=x')
    assert 'owl has no images (0.heic: HEIC, which is not read here: convert it to' in refusal(tmp_path)
    for line, (name, reason) in zip(spec.unusable, others.items(), strict=True):
        assert line.startswith(f'train/cat/{name}: ')
        assert reason in line


def test_folders_whose_names_are_not_utf8_are_refused_for_what_is_written(tmp_path):
    """ArrayRecord and Orbax take no other; images may be in one."""
    strange = tmp_path / os.fsdecode(b'caf\xe9')
    spec = spec_of(write(strange / 'images', *classes('train'), *classes('val')))
    with pytest.raises(InputError, match=r'/caf\\xe9/data: a name that is not UTF-8, .* choose another --data_dir'):
        prepare(spec, data_dir=strange / 'data', workers=1)
    assert not (strange / 'data').exists()
    with pytest.raises(InputError, match='a name that is not UTF-8'):
        open_dataset('pets', data_dir=strange)
    with pytest.raises(InputError, match=r'a name that is not UTF-8, .* choose another --workdir'):
        load_network(strange)
    assert prepare(spec, data_dir=tmp_path / 'data', workers=1).splits == {'train': 2, 'validation': 2}
