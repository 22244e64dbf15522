//! Nothing: this package is its tests, in `tests/e2e`, which run the built programs in processes of their own.
