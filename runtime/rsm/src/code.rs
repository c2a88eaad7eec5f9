//! Result codes (rsm 2.1): why a call was refused, by the number that C sees.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($number:literal $name:ident $text:literal)*) => {
        /// A refusal. Success has no code here: it is `Ok`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[repr(i32)]
        pub enum Code {
            $(
                #[doc = $text]
                $name = $number,
            )*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

codes! {
    1 BadLibraryVersion "the library and its plug-in are of different versions"
    2 BadTopologyPtr "no place for the topology was given"
    3 BadCtlrHndl "no such controller handle"
    4 CtlrNotPresent "no such controller, or it has gone"
    5 BadSegHndl "no such segment handle, or a segment in another state"
    6 SegAlreadyPublished "the segment is published already"
    7 SegNotPublished "no segment is published under this id"
    8 SegNotPublishedToNode "the segment is published, but not to this node"
    9 SegAlreadyMapped "the handle has a mapping already; unmap it, or connect a second handle"
    10 SegStillMapped "the handle has a mapping still; unmap it first"
    11 SegNotMapped "the handle has no mapping"
    12 NotCreator "another process has created the segment"
    13 BadBarrierPtr "no barrier was given, or a type that there is not"
    14 BadSgio "a malformed list of transfers"
    15 BadLocalmemHndl "no such handle of local memory"
    16 BadAddr "an address that is null or not the program's"
    17 BadMemAlignment "an address, offset or size that is no multiple of what is needed"
    18 BadOffset "an offset outside of the segment, or of what is mapped of it"
    19 MisalignedOffset "a misaligned offset"
    20 BadLength "a length that does not fit"
    21 BadAcl "a malformed access list"
    22 BadSegid "no segment id was given"
    23 ReservedSegid "the segment id is reserved; see the ranges of rsm 2.2"
    24 SegidInUse "another segment of this node has the id"
    25 BadMode "no mode of barriers"
    26 BadPerms "rights that there are not, or that the connection was not granted"
    27 PermDenied "the memory or the access list does not give the right"
    28 LocksNotSupported "locks are not supported"
    29 LocksNotEnabled "locks are not enabled"
    30 RebindNotAllowed "the segment was created without the right to be rebound"
    31 InsufficientResources "a descriptor, a slot or memory that can be shared is lacking"
    32 InsufficientMem "memory is lacking"
    33 MapFailed "the segment cannot be mapped"
    34 PollfdInUse "the segment's poll descriptor is in use; release it first"
    35 BarrierUninitialized "the barrier was not initialised"
    36 BarrierOpenFailed "the barrier could not be opened"
    37 BarrierNotOpened "the barrier is not open"
    38 BarrierFailure "an access since the barrier was opened has failed"
    39 RemoteNodeUnreachable "there is no way to the node"
    40 ConnAborted "the exporter has ended the connection"
    41 Interrupted "a signal came"
    42 Timeout "nothing came in time"
    43 BadAppid "no segment ids are reserved for the application"
    44 BadConf "the file of reserved segment ids is missing or malformed"
    45 SegNotConnected "the handle is not connected"
    100 InternalError "an error of the library"
    117 BadArgsErrors "malformed arguments"
}

impl Code {
    /// The number that C sees.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The name of that number in C: `RSMERR_CONN_ABORTED`.
    pub fn name(self) -> String {
        let mut name = "RSMERR".to_owned();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }

    /// What the system lacks, or refused, in the terms of this interface; `other` for what has no term.
    pub(crate) fn of(error: &windlass_mem::Error, other: Self) -> Self {
        use rustix::io::Errno;
        use windlass_mem::Error;
        match error {
            Error::Unmapped { .. } | Error::Misaligned { .. } => Self::BadAddr,
            Error::Protected { .. } => Self::PermDenied,
            Error::Unmovable { .. } => Self::InsufficientResources,
            Error::System { errno, .. } => match *errno {
                Errno::NOMEM | Errno::NOSPC => Self::InsufficientMem,
                Errno::MFILE | Errno::NFILE | Errno::AGAIN => Self::InsufficientResources,
                _ => other,
            },
            _ => other,
        }
    }
}

impl std::error::Error for Code {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        let first: Vec<i32> = Code::ALL.iter().map(|code| code.number()).collect();
        let expected: Vec<i32> = (1..=45).chain([100, 117]).collect();
        assert_eq!(first, expected);
        assert_eq!(Code::SegNotPublished.name(), "RSMERR_SEG_NOT_PUBLISHED");
        let texts: std::collections::BTreeSet<String> =
            Code::ALL.iter().map(Code::to_string).collect();
        assert_eq!(texts.len(), Code::ALL.len());
    }
}
