//! What a rank is doing, for the launcher's message after its death.

use std::sync::atomic::Ordering;

use windlass_mem::SharedWord;

/// What a rank is doing, as its status word tells the launcher after its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the variants are the names of the calls")]
pub enum Call {
    Compute = 0,
    Init = 1,
    Create = 2,
    Fence = 3,
    Lock = 4,
    Unlock = 5,
    Flush = 6,
    Put = 7,
    Get = 8,
    Update = 9,
    Free = 10,
    Barrier = 11,
    End = 12,
    Start = 13,
    Complete = 14,
    Post = 15,
    Wait = 16,
    Notify = 17,
}

/// The word where this rank notes what it is doing.
#[derive(Clone)]
pub struct StatusWord(SharedWord);

impl StatusWord {
    pub(crate) fn new(word: SharedWord) -> StatusWord {
        StatusWord(word)
    }

    /// From here on it is in this call.
    #[inline(always)]
    pub fn enter(&self, call: Call) {
        self.0.store(call as u64, Ordering::Relaxed);
    }
}

impl Call {
    /// The name of the call with this code.
    pub fn name(code: u64) -> Option<&'static str> {
        Some(match code {
            0 => "compute",
            1 => "init",
            2 => "window creation",
            3 => "fence",
            4 => "lock",
            5 => "unlock",
            6 => "flush",
            7 => "put",
            8 => "get",
            9 => "accumulate",
            10 => "free",
            11 => "barrier",
            12 => "end",
            13 => "start",
            14 => "complete",
            15 => "post",
            16 => "wait",
            17 => "waiting for a notification",
            _ => return None,
        })
    }
}
