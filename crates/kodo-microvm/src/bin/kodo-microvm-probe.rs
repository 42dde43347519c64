//! What the tests and the benchmark of this crate start machines with; no part of the product.

use std::path::PathBuf;

use kodo_microvm::{Acceleration, MicroVm, MicroVmConfig};
use kodo_sandbox::{JobSpec, Sandbox};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kodo_microvm::be_the_emulator_if_asked();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (word, folder) = match arguments.as_slice() {
        [word, folder] if word == "hold" || word == "kvm" => (word.as_str(), folder),
        _ => return Err("kodo-microvm-probe: see its source".into()),
    };
    if word == "kvm" {
        let config = MicroVmConfig {
            folder: PathBuf::from(folder),
            ..MicroVmConfig::default()
        };
        println!("{:?}", kodo_microvm::probe_kvm(&config));
        return Ok(());
    }
    // What a test kills: one machine with a job in it, and others that wait or boot.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let sandbox = MicroVm::start(MicroVmConfig {
            folder: PathBuf::from(folder),
            acceleration: Acceleration::Tcg,
            ready: 1,
            ..MicroVmConfig::default()
        })
        .await?;
        sandbox.run(&JobSpec::new(["true"])).await?;
        println!("holding");
        sandbox.run(&JobSpec::new(["sleep", "600"])).await?;
        Ok(())
    })
}
