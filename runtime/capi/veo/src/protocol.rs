//! What the library and the VE process say to each other. Both ends include this file.
//!
//! Two kinds of socket. *Control*, a pair of SOCK_SEQPACKET: one [`Control`] per message, an answer of eight bytes (an
//! errno or 0) to each. *Context*, a pair of SOCK_STREAM handed over by [`Control::Open`]: frames of `windlass-wire`, one
//! [`Request`] each, answered in order by one [`Reply`] each.
#![allow(dead_code, reason = "each end uses its part")]

use windlass_wire::{Malformed, Put, Take};

/// Changes with every change of this file: the binary may be another build than the library.
pub(crate) const VERSION: u32 = 1;

/// Bytes of all buffers of a call at most: what the stack of a VE process leaves for arguments.
pub(crate) const STACK_LIMIT: usize = 63 << 20;
/// Bytes of a frame at most: the largest call.
pub(crate) const FRAME_LIMIT: usize = STACK_LIMIT + (64 << 10);
/// Bytes of memory in one frame; also what a pipe holds.
pub(crate) const CHUNK: usize = 64 << 10;
/// Bytes of a path or a symbol's name at most.
pub(crate) const NAME_LIMIT: usize = 4096;
/// Arguments of a call at most.
pub(crate) const ARGUMENT_LIMIT: usize = windlass_abi::veo::VEO_MAX_NUM_ARGS;

/// Bytes of a control message at most.
pub(crate) const CONTROL_BYTES: usize = 16;

/// A message of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A context with a stack of so many bytes; its socket comes with the message.
    Open { stack: u64 },
    /// Run exit(3).
    Exit,
}

impl Control {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut put = Put::new();
        put.u32(VERSION);
        match self {
            Self::Open { stack } => put.u8(1).u64(stack),
            Self::Exit => put.u8(2),
        };
        put.into_vec()
    }

    pub(crate) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take::new(message);
        let version = take.u32()?;
        if version != VERSION {
            return Err(unknown("version of the protocol", version));
        }
        let control = match take.u8()? {
            1 => Self::Open { stack: take.u64()? },
            2 => Self::Exit,
            other => return Err(unknown("control message", other)),
        };
        take.finish()?;
        Ok(control)
    }
}

fn unknown(field: &'static str, value: impl Into<u64>) -> Malformed {
    Malformed::Value {
        field,
        value: value.into(),
    }
}

/// Functions of libsysve that VEO reaches (ve-memory 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Function {
    ShmGet = 0,
    ShmAt,
    ShmDt,
    MemOpen,
    MemClose,
    MemAttach,
    MemDetach,
    DmaPost,
    DmaPoll,
    DmaPostWait,
    PciSync,
}

impl Function {
    const ALL: [Self; 11] = [
        Self::ShmGet,
        Self::ShmAt,
        Self::ShmDt,
        Self::MemOpen,
        Self::MemClose,
        Self::MemAttach,
        Self::MemDetach,
        Self::DmaPost,
        Self::DmaPoll,
        Self::DmaPostWait,
        Self::PciSync,
    ];
}

/// Integer arguments of a [`Function`]; unused ones are 0.
pub(crate) type Words = [u64; 5];

/// An argument of a VE function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Argument<'a> {
    /// Any integer or pointer, extended to 64 bits.
    Integer(u64),
    /// The bits of a float (low half) or a double.
    Floating(u64),
    /// A buffer of so many bytes on the VE, filled with `given` (which is empty, or that long).
    Buffer {
        len: usize,
        given: &'a [u8],
        back: bool,
    },
}

/// A request to a context.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request<'a> {
    /// Answers its result; the buffers that go back follow one another.
    Call {
        function: u64,
        arguments: Vec<Argument<'a>>,
    },
    /// Answers a handle.
    Load { path: &'a [u8] },
    /// Answers nothing.
    Unload { library: u64 },
    /// Answers an address.
    Symbol { library: u64, name: &'a [u8] },
    /// Answers an address.
    Alloc { bytes: u64 },
    /// Answers nothing.
    Free { address: u64 },
    /// Answers the bytes: at most [`CHUNK`].
    Read { address: u64, bytes: u32 },
    /// Answers nothing. At most [`CHUNK`].
    Write { address: u64, data: &'a [u8] },
    /// memmove inside the VE process.
    Copy { to: u64, from: u64, bytes: u64 },
    /// Answers the function's result, negative errno for -1, and what it wrote (eight bytes) if it writes.
    System { function: Function, words: Words },
}

impl<'a> Request<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut put = Put::new();
        match self {
            Self::Call {
                function,
                arguments,
            } => encode_call(&mut put, *function, arguments),
            Self::Load { path } => {
                put.u8(2).bytes(path);
            }
            Self::Unload { library } => {
                put.u8(3).u64(*library);
            }
            Self::Symbol { library, name } => {
                put.u8(4).u64(*library).bytes(name);
            }
            Self::Alloc { bytes } => {
                put.u8(5).u64(*bytes);
            }
            Self::Free { address } => {
                put.u8(6).u64(*address);
            }
            Self::Read { address, bytes } => {
                put.u8(7).u64(*address).u32(*bytes);
            }
            Self::Write { address, data } => {
                put.u8(8).u64(*address).bytes(data);
            }
            Self::Copy { to, from, bytes } => {
                put.u8(9).u64(*to).u64(*from).u64(*bytes);
            }
            Self::System { function, words } => {
                put.u8(10).u8(*function as u8);
                for word in words {
                    put.u64(*word);
                }
            }
        }
        put.into_vec()
    }

    pub(crate) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut take = Take::new(message);
        let request = match take.u8()? {
            1 => decode_call(&mut take)?,
            2 => Self::Load {
                path: take.bytes(NAME_LIMIT)?,
            },
            3 => Self::Unload {
                library: take.u64()?,
            },
            4 => Self::Symbol {
                library: take.u64()?,
                name: take.bytes(NAME_LIMIT)?,
            },
            5 => Self::Alloc { bytes: take.u64()? },
            6 => Self::Free {
                address: take.u64()?,
            },
            7 => Self::Read {
                address: take.u64()?,
                bytes: bounded(take.u32()?, CHUNK)?,
            },
            8 => Self::Write {
                address: take.u64()?,
                data: take.bytes(CHUNK)?,
            },
            9 => Self::Copy {
                to: take.u64()?,
                from: take.u64()?,
                bytes: take.u64()?,
            },
            10 => decode_system(&mut take)?,
            other => return Err(unknown("request", other)),
        };
        take.finish()?;
        Ok(request)
    }
}

fn bounded(len: u32, limit: usize) -> Result<u32, Malformed> {
    if len as usize > limit {
        let len = len as usize;
        return Err(Malformed::TooLong { len, limit });
    }
    Ok(len)
}

fn encode_call(put: &mut Put, function: u64, arguments: &[Argument<'_>]) {
    put.u8(1).u64(function).u16(arguments.len() as u16);
    for argument in arguments {
        match *argument {
            Argument::Integer(value) => put.u8(0).u64(value),
            Argument::Floating(bits) => put.u8(1).u64(bits),
            Argument::Buffer { len, given, back } => put
                .u8(2 + u8::from(back))
                .u32(len as u32)
                .u8(u8::from(given.len() == len))
                .raw(given),
        };
    }
}

fn decode_call<'a>(take: &mut Take<'a>) -> Result<Request<'a>, Malformed> {
    let function = take.u64()?;
    let count = usize::from(take.u16()?);
    if count > ARGUMENT_LIMIT {
        return Err(Malformed::TooLong {
            len: count,
            limit: ARGUMENT_LIMIT,
        });
    }
    let (mut arguments, mut all) = (Vec::with_capacity(count), 0);
    for _ in 0..count {
        arguments.push(match take.u8()? {
            0 => Argument::Integer(take.u64()?),
            1 => Argument::Floating(take.u64()?),
            kind @ 2..=3 => {
                let len = take.u32()? as usize;
                all += len;
                if all > STACK_LIMIT {
                    return Err(Malformed::TooLong {
                        len: all,
                        limit: STACK_LIMIT,
                    });
                }
                let given = if take.u8()? == 0 { 0 } else { len };
                Argument::Buffer {
                    len,
                    given: take.raw(given)?,
                    back: kind == 3,
                }
            }
            other => return Err(unknown("kind of argument", other)),
        });
    }
    Ok(Request::Call {
        function,
        arguments,
    })
}

fn decode_system<'a>(take: &mut Take<'a>) -> Result<Request<'a>, Malformed> {
    let code = take.u8()?;
    let function = Function::ALL
        .into_iter()
        .find(|function| *function as u8 == code)
        .ok_or_else(|| unknown("function", code))?;
    let mut words = Words::default();
    for word in &mut words {
        *word = take.u64()?;
    }
    Ok(Request::System { function, words })
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reply {
    /// 0, or why nothing was done.
    pub(crate) errno: i32,
    /// Result, handle or address.
    pub(crate) value: u64,
    /// Memory.
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn value(value: u64) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }

    pub(crate) fn refused(errno: i32) -> Self {
        Self {
            errno,
            ..Self::default()
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut put = Put::new();
        put.u32(self.errno as u32).u64(self.value).raw(&self.bytes);
        put.into_vec()
    }

    pub(crate) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take::new(message);
        Ok(Self {
            errno: take.u32()? as i32,
            value: take.u64()?,
            bytes: take.rest().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever arrives is a message that reads back the same, or is refused; nothing panics.
        #[test]
        fn any_bytes_are_messages_or_refused(
            kind in 0..12_u8,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let message = [&[kind][..], &bytes].concat();
            if let Ok(request) = Request::decode(&message) {
                let again = request.encode();
                prop_assert_eq!(Request::decode(&again), Ok(request));
            }
            if let Ok(control) = Control::decode(&message) {
                prop_assert_eq!(Control::decode(&control.encode()), Ok(control));
            }
            let _ = Reply::decode(&message);
        }
    }

    fn samples() -> Vec<Request<'static>> {
        vec![
            Request::Call {
                function: 77,
                arguments: vec![
                    Argument::Integer(u64::MAX),
                    Argument::Floating(1),
                    Argument::Buffer {
                        len: 3,
                        given: b"abc",
                        back: true,
                    },
                    Argument::Buffer {
                        len: 9,
                        given: b"",
                        back: true,
                    },
                    Argument::Buffer {
                        len: 0,
                        given: b"",
                        back: false,
                    },
                ],
            },
            Request::Load { path: b"./lib.so" },
            Request::Unload { library: 1 },
            Request::Symbol {
                library: 0,
                name: b"f",
            },
            Request::Alloc { bytes: 1 << 40 },
            Request::Free { address: 5 },
            Request::Read {
                address: 6,
                bytes: CHUNK as u32,
            },
            Request::Write {
                address: 7,
                data: b"data",
            },
            Request::Copy {
                to: 1,
                from: 2,
                bytes: 3,
            },
            Request::System {
                function: Function::PciSync,
                words: [1, 2, 3, 4, u64::MAX],
            },
        ]
    }

    #[test]
    fn requests_come_back_and_cut_ones_are_refused() {
        for request in samples() {
            let message = request.encode();
            assert_eq!(Request::decode(&message), Ok(request));
            for cut in 0..message.len() {
                assert!(Request::decode(&message[..cut]).is_err());
            }
            let longer = [&message[..], b"x"].concat();
            assert!(Request::decode(&longer).is_err());
        }
        assert!(Request::decode(&[11]).is_err());
    }

    #[test]
    fn what_is_too_large_is_refused_before_memory_is_taken() {
        let mut put = Put::new();
        put.u8(7).u64(0).u32(CHUNK as u32 + 1);
        assert!(Request::decode(put.as_slice()).is_err());
        let mut put = Put::new();
        put.u8(1).u64(1).u16(257);
        assert!(Request::decode(put.as_slice()).is_err());
        let mut put = Put::new();
        put.u8(1)
            .u64(1)
            .u16(1)
            .u8(2)
            .u32(STACK_LIMIT as u32 + 1)
            .u8(0);
        assert!(Request::decode(put.as_slice()).is_err());
    }

    #[test]
    fn control_messages_and_replies_come_back() {
        for control in [Control::Open { stack: 1 << 40 }, Control::Exit] {
            let message = control.encode();
            assert!(message.len() <= CONTROL_BYTES);
            assert_eq!(Control::decode(&message), Ok(control));
        }
        let mut other = Control::Exit.encode();
        other[0] ^= 1;
        assert!(Control::decode(&other).is_err(), "another version");
        let reply = Reply {
            errno: 14,
            value: 3,
            bytes: vec![1, 2],
        };
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        assert!(Reply::decode(&[0; 11]).is_err());
    }
}
