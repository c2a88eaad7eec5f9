//! Only a window makes guards of accesses and exposures.
use windlass::{Exposure, Started};

fn main() {
    let started = Started(());
    let exposure: Exposure<'static, f64> = Exposure {};
    drop((started, exposure));
}
