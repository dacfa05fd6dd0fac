"""What a flag's text means."""

from alexnet_jax.commands.command_line import split_paths


def test_paths_come_with_commas_or_one_by_one_and_a_comma_may_be_in_a_name(tmp_path):
    (tmp_path / 'rate=0.1,seed=0').mkdir()
    own = str(tmp_path / 'rate=0.1,seed=0')
    assert split_paths(['a,b']) == ['a', 'b']
    assert split_paths(['a', 'b,c']) == ['a', 'b', 'c']
    assert split_paths([own, 'a,b']) == [own, 'a', 'b']
    assert split_paths([f'{own}x,b']) == [str(tmp_path / 'rate=0.1'), 'seed=0x', 'b']
    assert split_paths([]) == split_paths(['']) == []
