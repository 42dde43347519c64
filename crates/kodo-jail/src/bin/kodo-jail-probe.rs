//! What the tests of this crate put into a jail, and what they put it with; no part of the product.
//!
//! `kodo-jail-probe jail-init` is the helper, `kodo-jail-probe weakened NAME…` the helper without some of its
//! defences, and `kodo-jail-probe attack NAME` tries one thing that a job must not be able to do. An attack ends
//! with 0 where it was held and with 10 where it was not; anything else is neither.

#[path = "kodo-jail-probe/attacks.rs"]
mod attacks;
#[path = "kodo-jail-probe/hold.rs"]
mod hold;
#[path = "kodo-jail-probe/tracing.rs"]
mod tracing;

use std::ffi::OsString;

fn main() {
    kodo_jail::be_the_helper_if_asked();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|it| it.to_str()).collect();
    match words.as_slice() {
        ["weakened", ..] => kodo_jail::be_the_helper_without(&arguments[1..]),
        ["attack", name, rest @ ..] => {
            let verdict = attacks::run(name, rest);
            println!("{name}: {}", verdict.what);
            std::process::exit(if verdict.held { 0 } else { 10 });
        }
        // What the tests have killed while a job of it runs.
        ["hold", name, rest @ ..] => {
            if let Err(error) = hold::run(name, rest) {
                eprintln!("kodo-jail-probe: {error}");
                std::process::exit(2);
            }
        }
        _ => {
            eprintln!("kodo-jail-probe: see its source");
            std::process::exit(2);
        }
    }
}
