"""Tests, intervals and power of paired differences."""
