//! `cargo xtask`: what a builder does with this project.

fn main() {}
