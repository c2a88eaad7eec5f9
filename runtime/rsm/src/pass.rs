//! How a process finds the exporter of another node's segment, and shows that it may: what the services hand out for that.
//!
//! The exporter publishes with a [`Door`]: where it listens, and a secret. Who was given a right by its service holds a [`Pass`]:
//! the same place, and a key that only the secret gives for that right.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use windlass_dat::Secret;

/// What processes of a job's nodes reach each other by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Known to all of them, and to nobody else.
    pub secret: Key,
    /// This node's address there.
    pub address: IpAddr,
}

/// A secret, or what only one gives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key([u8; 32]);

impl Key {
    /// Of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Nobody else's.
    pub(crate) fn random() -> Self {
        Self(Secret::random().code_of(b"segment", &[]))
    }

    /// What this secret gives for these rights.
    fn of(&self, rights: u32) -> Self {
        Self(self.secret().code_of(b"rights", &rights.to_le_bytes()))
    }

    pub(crate) fn secret(&self) -> Secret {
        Secret::from_bytes(self.0)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// Where importers of other nodes come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Door {
    /// The exporter's process listens there.
    pub at: SocketAddr,
    /// This segment's alone.
    pub secret: Key,
}

impl Door {
    /// For whoever has these rights.
    pub(crate) fn pass(&self, rights: u32) -> Pass {
        Pass {
            at: self.at,
            key: self.secret.of(rights),
        }
    }
}

/// What lets an importer in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pass {
    /// As of [`Door`].
    pub at: SocketAddr,
    /// Of its rights.
    pub key: Key,
}
