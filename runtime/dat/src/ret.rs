//! DAT_RETURN: the class, type and subtype of every refusal (udapl.md section 2.1).
//!
//! A refusal is an [`Error`]: one type, one subtype. [`Error::code`] gives the 32-bit value of the binary
//! contract, always with the class bit set, because this provider never answers a warning.

use std::fmt;

/// Class bits of an error (udapl.md section 2.1).
pub const CLASS_ERROR: u32 = 0x8000_0000;

macro_rules! types {
    ($($name:ident = $value:literal, $dat:literal, $text:literal;)*) => {
        /// The type part of a DAT_RETURN (bits 29-16).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Type {
            $(#[doc = concat!("`DAT_", $dat, "`: ", $text, ".")] $name = $value,)*
        }
        impl Type {
            /// The name in the DAT headers, without its prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Type::$name => $dat,)* }
            }
            const fn text(self) -> &'static str {
                match self { $(Type::$name => $text,)* }
            }
        }
    };
}

types! {
    Abort = 0x0001_0000, "ABORT", "the operation was aborted";
    ConnQualInUse = 0x0002_0000, "CONN_QUAL_IN_USE", "another service point has this connection qualifier; choose another or free that one";
    InsufficientResources = 0x0003_0000, "INSUFFICIENT_RESOURCES", "a resource or queue is used up; free objects or take completions first";
    InternalError = 0x0004_0000, "INTERNAL_ERROR", "the provider failed in itself";
    InvalidHandle = 0x0005_0000, "INVALID_HANDLE", "the object is of another kind or adapter, or was freed";
    InvalidParameter = 0x0006_0000, "INVALID_PARAMETER", "an argument is outside what the call accepts";
    InvalidState = 0x0007_0000, "INVALID_STATE", "the object is not in a state that permits this call";
    LengthError = 0x0008_0000, "LENGTH_ERROR", "local and remote lengths do not fit each other";
    ModelNotSupported = 0x0009_0000, "MODEL_NOT_SUPPORTED", "this provider does not offer the model asked for";
    ProviderNotFound = 0x000A_0000, "PROVIDER_NOT_FOUND", "no provider is registered under this name";
    PrivilegesViolation = 0x000B_0000, "PRIVILEGES_VIOLATION", "an access right is missing or the memory context is not valid";
    ProtectionViolation = 0x000C_0000, "PROTECTION_VIOLATION", "memory and endpoint belong to different protection zones";
    QueueEmpty = 0x000D_0000, "QUEUE_EMPTY", "no event is queued";
    QueueFull = 0x000E_0000, "QUEUE_FULL", "the event queue is full; dequeue first";
    TimeoutExpired = 0x000F_0000, "TIMEOUT_EXPIRED", "the time given has passed";
    InvalidAddress = 0x0012_0000, "INVALID_ADDRESS", "the address cannot be used";
    InterruptedCall = 0x0013_0000, "INTERRUPTED_CALL", "the call was interrupted";
    ConnQualUnavailable = 0x0014_0000, "CONN_QUAL_UNAVAILABLE", "no connection qualifier is free";
    NotImplemented = 0x3FFF_0000, "NOT_IMPLEMENTED", "this provider does not implement the call";
}

macro_rules! subtypes {
    ($($name:ident = $value:literal,)*) => {
        /// The subtype part of a DAT_RETURN (bits 15-0): one running number (udapl.md section 2.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[allow(missing_docs, reason = "the names are those of the contract's table")]
        pub enum Subtype {
            $($name = $value,)*
        }
    };
}

subtypes! {
    None = 0, Interrupted = 1, Memory = 2, Device = 3, Tep = 4, Tevd = 5, ProtectionDomain = 6,
    MemoryRegion = 7, ErrorHandler = 8, Credits = 9, Srq = 10,
    Ia = 11, Ep = 12, Lmr = 13, Rmr = 14, Pz = 15, Psp = 16, Rsp = 17, Cr = 18, Cno = 19, EvdCr = 20,
    EvdRequest = 21, EvdRecv = 22, EvdConn = 23, EvdAsync = 24, SrqHandle = 25, Csp = 26,
    Arg1 = 37, Arg2 = 38, Arg3 = 39, Arg4 = 40, Arg5 = 41, Arg6 = 42, Arg7 = 43, Arg8 = 44, Arg9 = 45,
    Arg10 = 46,
    EpUnconnected = 47, EpActConnPending = 48, EpPassConnPending = 49, EpTentConnPending = 50,
    EpConnected = 51, EpDisconnected = 52, EpReserved = 53, EpComplPending = 54, EpDiscPending = 55,
    EpProviderControl = 56, EpNotReady = 57, CnoInUse = 67, CnoDead = 68,
    EvdOpen = 69, EvdEnabled = 70, EvdDisabled = 71, EvdWaitable = 72, EvdUnwaitable = 73, EvdInUse = 74,
    EvdWaiter = 78, EvdAsyncState = 79, IaInUse = 80, LmrInUse = 81, LmrFree = 82, PzInUse = 83, PzFree = 84,
    SrqInUse = 87, NameNotRegistered = 100,
    PrivilegesRead = 89, PrivilegesWrite = 90, PrivilegesRdmaRead = 91, PrivilegesRdmaWrite = 92,
    ProtectionRead = 93, ProtectionWrite = 94, ProtectionRdmaRead = 95, ProtectionRdmaWrite = 96,
    AddressUnsupported = 97, AddressUnreachable = 98, AddressMalformed = 99,
}

/// A refusal: the one thing every call of this crate answers when it does not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Error {
    /// What kind of refusal.
    pub kind: Type,
    /// Which object, argument or state it is about.
    pub subtype: Subtype,
}

/// The answer of every call that can be refused.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal of this type about this subtype.
    pub const fn new(kind: Type, subtype: Subtype) -> Self {
        Self { kind, subtype }
    }

    /// The 32-bit DAT_RETURN value, class bit included.
    pub const fn code(self) -> u32 {
        CLASS_ERROR | self.kind as u32 | self.subtype as u32
    }

    /// INVALID_HANDLE about this kind of object.
    pub const fn handle(subtype: Subtype) -> Self {
        Self::new(Type::InvalidHandle, subtype)
    }

    /// INVALID_PARAMETER about this argument.
    pub const fn arg(subtype: Subtype) -> Self {
        Self::new(Type::InvalidParameter, subtype)
    }

    /// INVALID_STATE about this state.
    pub const fn state(subtype: Subtype) -> Self {
        Self::new(Type::InvalidState, subtype)
    }

    /// INSUFFICIENT_RESOURCES of this kind.
    pub const fn resources(subtype: Subtype) -> Self {
        Self::new(Type::InsufficientResources, subtype)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({:?}): {}",
            self.kind.name(),
            self.subtype,
            self.kind.text()
        )
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{:?} ({:#010x})",
            self.kind.name(),
            self.subtype,
            self.code()
        )
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_table() {
        assert_eq!(Error::handle(Subtype::Ep).code(), 0x8005_000C);
        assert_eq!(Error::arg(Subtype::Arg7).code(), 0x8006_002B);
        assert_eq!(Error::state(Subtype::PzInUse).code(), 0x8007_0053);
        assert_eq!(
            Error::new(Type::NotImplemented, Subtype::None).code(),
            0xBFFF_0000
        );
        assert_eq!(Subtype::EvdUnwaitable as u16, 73);
        assert_eq!(Subtype::ProtectionRdmaWrite as u16, 96);
    }
}
