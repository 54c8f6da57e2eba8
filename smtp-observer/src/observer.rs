//! Kernel events in, observations out: the only door of the pure core.
