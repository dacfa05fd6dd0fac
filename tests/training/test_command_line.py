"""What a flag's text means."""

from alexnet_jax.training.command_line import paths_of


def test_paths_come_with_commas_or_one_by_one_and_a_comma_may_be_in_a_name(tmp_path):
    (tmp_path / 'rate=0.1,seed=0').mkdir()
    own = str(tmp_path / 'rate=0.1,seed=0')
    assert paths_of(['a,b']) == ['a', 'b']
    assert paths_of(['a', 'b,c']) == ['a', 'b', 'c']
    assert paths_of([own, 'a,b']) == [own, 'a', 'b']
    assert paths_of([f'{own}x,b']) == [str(tmp_path / 'rate=0.1'), 'seed=0x', 'b']
    assert paths_of([]) == paths_of(['']) == []
