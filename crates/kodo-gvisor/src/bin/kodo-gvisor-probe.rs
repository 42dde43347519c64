//! What the tests of this crate start sandboxes with; no part of the product.
//!
//! `kodo-gvisor-probe hold RUNSC PLATFORM` runs a job that waits, for a test that kills it. As anything else it is the
//! helper of the jail, or the first process of a sandbox.

use std::path::PathBuf;

use kodo_gvisor::{Gvisor, GvisorConfig, Platform};
use kodo_sandbox::{JobSpec, Sandbox};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kodo_jail::be_the_helper_if_asked();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [_, runsc, platform] = arguments.as_slice() else {
        return Err("kodo-gvisor-probe: see its source".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let sandbox = Gvisor::start(GvisorConfig {
            runsc: PathBuf::from(runsc),
            platform: Platform::of(platform).ok_or("no such platform")?,
            ..GvisorConfig::default()
        })
        .await?;
        println!("holding");
        // A name that only its own processes have on their command line.
        sandbox.run(&JobSpec::new(["sleep", "600"])).await?;
        Ok(())
    })
}
