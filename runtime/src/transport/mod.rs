//! The mechanisms, and what a transport file must have.
//!
//! A new mechanism is one file here and one line in [`all`]; it passes `tests/transports.rs`
//! unchanged. The file reads from top to bottom: can it work (`probe`), make memory reachable
//! (`export`), would a peer's export be reachable (`reach`), reach it (`attach`). It contains no
//! copy loop: an attach ends in [`Route::Mapped`](crate::route::Route), or in a
//! [`Queue`](crate::completion::Queue) over an engine. `loopback.rs` is the one to copy.

use std::sync::Arc;

use windlass_node::{Client, VeClient};
use windlass_wire::Secret;

use crate::error::{Result, cause};
use crate::guard::Keeper;
use crate::mechanism::{Mechanism, Place};
use crate::network::Network;
use crate::progress::Health;

pub mod cma;
pub mod loopback;
pub mod native;
pub mod ofi;
pub mod rsm;
pub mod udapl;
pub mod vedma;
pub mod veo;
pub mod veshm;
pub mod vhshm;

/// What mechanisms are built from: this process and its node.
#[derive(Clone)]
pub struct Context {
    /// This rank.
    pub rank: u32,
    /// How many there are.
    pub ranks: u32,
    /// Its node.
    pub node: u32,
    /// How many nodes there are.
    pub nodes: u32,
    /// Where it lives.
    pub place: Place,
    /// The node service.
    pub client: Arc<Client>,
    /// This process on the emulated VE node, where the node has VEs: a VE process if the rank
    /// lives on a VE, else a host process.
    pub ve: Option<Arc<windlass_ve::Process>>,
    /// The library of real VEs, where windows of this job lie on them.
    pub native: Option<Arc<native::Native>>,
    /// Where ranks of other nodes come from.
    pub network: Network,
    /// The job's secret, for links between ranks.
    pub secret: Secret,
    /// What waits consult.
    pub health: Arc<Health>,
    /// The guards of this rank's wide elements.
    pub keeper: Keeper,
    /// The uDAPL adapter that the user names, of those that libdat2 knows.
    pub dat: Option<String>,
    /// What the user says of libfabric.
    pub ofi: ofi::Choice,
}

impl Context {
    /// Joins the node's VE part, if there is one.
    ///
    /// # Errors
    /// The node service refuses.
    pub(crate) fn join_ve(
        client: &Arc<Client>,
        ves: u32,
    ) -> Result<Option<Arc<windlass_ve::Process>>> {
        if ves == 0 {
            return Ok(None);
        }
        let control = Arc::new(VeClient(Arc::clone(client)));
        let process = windlass_ve::Process::join(control).map_err(|e| crate::Error::Node {
            what: "joining the VE node",
            source: cause(e),
        })?;
        Ok(Some(Arc::new(process)))
    }
}

/// Every mechanism of this process.
///
/// # Errors
/// What the user asks for by name and is not there.
pub fn all(context: &Context) -> Result<Vec<Box<dyn Mechanism>>> {
    let dma = vedma::VeDma::new(context);
    let veo: Box<dyn Mechanism> = match &context.native {
        Some(native) => Box::new(native::NativeVeo::new(context, native)),
        None => Box::new(veo::Veo::new(context)),
    };
    Ok(vec![
        Box::new(loopback::Loopback::new(context)),
        Box::new(veshm::Veshm::new(context, &dma)),
        Box::new(vhshm::Vhshm::new(context, &dma)),
        veo,
        Box::new(rsm::Rsm::new(context)),
        Box::new(cma::Cma::new(context)),
        udapl::new(context)?,
        Box::new(ofi::Ofi::new(context)?),
    ])
}
