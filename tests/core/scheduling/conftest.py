"""What the tests of scheduling share: graphs drawn at random, and the outside traces."""

import pytest
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def wfinstances(shared_data):
    folder = shared_data / "wfinstances"
    if not folder.is_dir():
        pytest.skip(f"recorded workflows are not at {folder}")
    return folder


@st.composite
def _graphs(draw, max_size=9, in_order=None):
    """Ids in order of submission, and what each waits for; any order, never a circle."""
    size = draw(st.integers(0, max_size))
    sorted_ids = [f"t{i}" for i in range(size)]
    shuffled = draw(st.booleans()) if in_order is None else not in_order
    hidden = draw(st.permutations(sorted_ids)) if shuffled else sorted_ids
    before = {name: [] for name in sorted_ids}
    for at, name in enumerate(hidden):
        if at:
            before[name] = [
                hidden[i] for i in draw(st.lists(st.integers(0, at - 1), max_size=3, unique=True))
            ]
    return before


@pytest.fixture(scope="session")
def graphs():
    return _graphs
