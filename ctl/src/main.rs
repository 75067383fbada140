//! `ladewartctl`
fn main() {}
