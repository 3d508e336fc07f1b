"""Resources that refuse stale tokens."""

import threading

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import InvalidConfig, StaleToken
from agentflow.locks import AutoRenewLock, FencedFile, FencedResource, FencedTable

BAD_TOKENS = (0, -1, 1.5, "7", None, True)


@given(st.lists(st.integers(1, 6), max_size=30))
def test_accepted_tokens_never_decrease(tokens):
    """The model: a write is refused exactly if a larger token was accepted before."""
    resource, accepted = FencedResource(0), []
    for n, token in enumerate(tokens):
        if token < max(accepted, default=0):
            with pytest.raises(StaleToken) as caught:
                resource.write(n, token)
            assert (caught.value.token, caught.value.current) == (token, max(accepted))
        else:
            resource.write(n, token)
            accepted.append(token)
            assert resource.read() == n
    assert accepted == sorted(accepted)
    assert (resource.accepted, resource.rejected) == (len(accepted), len(tokens) - len(accepted))


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_what_is_no_token_is_refused(token, tmp_path):
    with pytest.raises(InvalidConfig):
        FencedResource(0).write(1, token)
    with pytest.raises(InvalidConfig):
        FencedFile(tmp_path / "x").write("a", token)
    assert list(tmp_path.iterdir()) == []


def test_an_edit_that_fails_changes_neither_value_nor_token():
    resource = FencedResource(1)
    with pytest.raises(ZeroDivisionError):
        resource.change(lambda value: value // 0, token=5)
    assert (resource.read(), resource.token) == (1, 0)


def test_threads_with_mixed_tokens_leave_the_newest_ones_value():
    resource = FencedResource(0)

    def write(token):
        for _ in range(200):
            try:
                resource.write(token, token)
            except StaleToken:
                return

    threads = [threading.Thread(target=write, args=(token,)) for token in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resource.read() == resource.token == 8


def test_a_file_keeps_the_newest_holders_words(tmp_path):
    report = FencedFile(tmp_path / "report.txt")
    assert report.token == 0
    report.write("first ü", 3)
    report.write("same holder", 3)
    with pytest.raises(StaleToken):
        report.write("late", 2)
    again = FencedFile(tmp_path / "report.txt")
    assert (again.read(), again.token) == ("same holder", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.txt", "report.txt.token"]


def test_a_table_admits_in_the_callers_transaction(url, key):
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    fence = FencedTable(f"fence_{key.replace('-', '_')}")
    with engine.begin() as conn:
        fence.create(conn)
        fence.create(conn)
        assert fence.token(conn, "orders") == 0
        fence.admit(conn, "orders", 3)
        fence.admit(conn, "orders", 3)
        fence.admit(conn, "invoices", 1)

    def refused():
        with engine.begin() as conn:
            fence.admit(conn, "invoices", 2)
            fence.admit(conn, "orders", 2)

    with pytest.raises(StaleToken) as caught:
        refused()
    assert (caught.value.token, caught.value.current) == (2, 3)
    with engine.begin() as conn:
        assert fence.token(conn, "invoices") == 1, "what the refused transaction did is undone"
        conn.exec_driver_sql(f"DROP TABLE {fence.table}")
    engine.dispose()


def test_a_tables_name_is_no_place_for_sql():
    with pytest.raises(InvalidConfig):
        FencedTable("x; DROP TABLE y")


def test_a_paused_holder_is_refused_once_its_successor_has_written(make, run, key):
    async def main():
        resource = FencedResource("nothing")
        first, operator, second = make("w1", ttl=30), make("ops"), make("w2", ttl=30)
        paused = await AutoRenewLock.acquire(first, key)
        await operator.force_release(key)
        async with await AutoRenewLock.acquire(second, key) as held:
            resource.write("second's", held.token)
        with pytest.raises(StaleToken):
            resource.write("first's, late", paused.token)
        await paused.release()
        assert resource.read() == "second's"

    run(main())
