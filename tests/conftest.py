"""Which tests run: those in a browser only where they are asked for."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--browser`, without which a machine needs no Chromium."""
    parser.addoption(
        "--browser", action="store_true", help="run the tests in a browser too (needs Chromium)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests with the marker `browser` unless they are asked for."""
    if config.getoption("--browser"):
        return
    left_out = [item for item in items if item.get_closest_marker("browser")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("browser")]
