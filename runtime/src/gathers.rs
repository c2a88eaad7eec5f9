//! All-gathers of values: what the agreements of a team are made of.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, cause};
use crate::exchange::{Group, Topic};
use crate::mechanism::Reason;

/// What most values that are traded take.
const BLOB_BYTES: usize = 1024;

/// All-gathers of a team, and of values what they are made of.
pub(crate) trait Gathers {
    /// Who takes part.
    fn group(&self) -> &Group;
    /// Everybody's bytes, by team rank.
    fn all_gather(&self, topic: Topic, blob: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// An all-gather of values: everybody's, by team rank. A rank that sends rubbish is an error.
    fn trade<T: DeserializeOwned>(&self, topic: Topic, mine: &impl Serialize) -> Result<Vec<T>> {
        let blobs = self.all_gather(topic, &encode(mine)?)?;
        let ranks = self.group().ranks.iter();
        blobs.iter().zip(ranks).map(decode).collect()
    }

    /// The same of results: all values, or an error on every rank, which is its own or another's.
    fn all_well<T: Serialize + DeserializeOwned>(
        &self,
        topic: Topic,
        mine: Result<T>,
    ) -> Result<Vec<T>> {
        let told = match &mine {
            Ok(value) => Ok(value),
            Err(error) => Err(Reason::from_error(topic.label(), error)),
        };
        let blobs = self.all_gather(topic, &encode(&told)?)?;
        let group = self.group();
        // What is here need not be read.
        let mut mine = Some(mine?);
        let one = |(blob, rank): (&Vec<u8>, &u32)| {
            if *rank == group.ranks[group.rank as usize]
                && let Some(mine) = mine.take()
            {
                return Ok(mine);
            }
            let told: std::result::Result<T, Reason> = decode((blob, rank))?;
            told.map_err(|Reason(message)| Error::Peer {
                rank: *rank,
                message: message.into_owned(),
            })
        };
        blobs.iter().zip(&group.ranks).map(one).collect()
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    let blob = postcard::to_extend(value, Vec::with_capacity(BLOB_BYTES));
    blob.map_err(|e| Error::Node {
        what: "encoding a part",
        source: cause(e),
    })
}

/// What that job rank sent.
fn decode<T: DeserializeOwned>((blob, &rank): (&Vec<u8>, &u32)) -> Result<T> {
    postcard::from_bytes(blob).map_err(|e| Error::Peer {
        rank,
        message: format!("its part cannot be read: {e}"),
    })
}
