//! Snapshots and restores of whole trees beside what the system's own tools need for the same, as JSON lines.
//!
//! The tree has 20 000 files of 200 bytes and 300 MiB that nothing compresses. Each ratio is of the minima of rounds that took
//! turns, which a busy machine disturbs least. `cargo bench -p cofferdam-snapshot --bench trees`; with names of parts after
//! `--` (`whole`, `memory`, `layers`, `scans`, `one-byte`), those alone. `TREES_BASES=20000,100000,1000000` names the sizes of the trees
//! beneath the layers; the default leaves the largest out, which takes minutes to make.
#![expect(clippy::disallowed_methods, reason = "other programs are what it measures against")]

#[path = "trees/kit.rs"]
mod kit;
#[path = "trees/layers.rs"]
mod layers;
#[path = "trees/one_byte.rs"]
mod one_byte;
#[path = "trees/scans.rs"]
mod scans;
#[path = "trees/synthetic.rs"]
mod synthetic;
#[path = "trees/whole.rs"]
mod whole;

use kit::Result;

/// The argument under which this program starts itself, to measure one step alone.
const ALONE: &str = "--alone";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let [alone, step @ ..] = &*arguments
        && alone == ALONE
    {
        return runtime.block_on(whole::alone(step));
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|name| name == part);
    runtime.block_on(async {
        if wanted("whole") {
            whole::run().await?;
        }
        if wanted("memory") {
            whole::memory()?;
        }
        if wanted("scans") {
            scans::run().await?;
        }
        if wanted("one-byte") {
            one_byte::run().await?;
        }
        if wanted("layers") {
            layers::run().await?;
        }
        Ok(())
    })
}
