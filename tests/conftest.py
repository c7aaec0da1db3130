"""Which tests run: those in a browser, those that time, and long ones, only where asked for."""

from collections.abc import Iterator

import pytest

#: Marker, and the option that asks for it -> what it needs.
ASKED_FOR = {
    "browser": "run the tests in a browser too (needs Chromium)",
    "libraries": "run the tests with models of other libraries too (tox -e zoo)",
    "long": "run the long tests too (tox -e long)",
    "alone": "run the tests that time commits too (needs a machine that does nothing else)",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for each, without which a machine needs nothing special."""
    for name, needs in ASKED_FOR.items():
        parser.addoption(f"--{name}", action="store_true", help=needs)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose marker was not asked for."""
    left = {name for name in ASKED_FOR if not config.getoption(f"--{name}")}
    left_out = [item for item in items if any(map(item.get_closest_marker, left))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have plans remember what they tried in a folder of this session, not in the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
