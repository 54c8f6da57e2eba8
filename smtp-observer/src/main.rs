//! smtp-observer: arguments in, exit status out.

fn main() {}
