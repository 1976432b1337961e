"""Former names of modules."""

import pickle
from importlib import import_module
from importlib.util import find_spec

import pytest

from modal_ntk.environment import moved


@pytest.mark.parametrize("former", moved.MOVED)
def test_a_former_name_is_the_module_of_today(former):
    """Both names give one module object, which goes by the present name, also to the import system."""
    module = import_module(former)
    present = moved.MOVED[former]
    assert module is import_module(present)
    assert module.__name__ == module.__spec__.name == present


def test_a_pickle_of_an_earlier_version_is_read():
    """A class is found under the name of the module that held it when it was pickled."""
    from modal_ntk.bench import Protocol

    # Protocol 0 writes a class as its module's name, its own, and a full stop.
    assert pickle.loads(b"cmodal_ntk.bench.protocol\nProtocol\n.") is Protocol


def test_what_never_was_is_not_found():
    """Only names that modules had are forwarded."""
    assert find_spec("modal_ntk.bench.nothing") is None
