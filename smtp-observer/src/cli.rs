//! The command line and the configuration file, as one set of values.
