//! The program: see `passerelle --help`.
fn main() {}
