//! The helper, for tests and benchmarks of this crate; no part of the product.
fn main() {
    kodo_jail::be_the_helper_if_asked();
}
