//! `struct veo_args`: the arguments of a call, set one by one.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use windlass_abi::veo::{
    VEO_INTENT_IN, VEO_INTENT_INOUT, VEO_INTENT_OUT, VEO_MAX_NUM_ARGS, veo_args,
};

use crate::edge::{EINVAL, Errno, Result, edge};
use crate::link::Place;
use crate::protocol::{Argument, Request, STACK_LIMIT};
use crate::registry;

#[derive(Debug, Clone, Copy)]
enum Slot {
    Integer(u64),
    Floating(u64),
    Buffer {
        intent: c_int,
        start: *mut u8,
        len: usize,
    },
}

/// What a `struct veo_args *` points to.
#[derive(Debug, Default)]
pub(crate) struct Args(Vec<Option<Slot>>);

/// A call, ready to be sent.
#[derive(Debug)]
pub(crate) struct Call {
    /// What is called.
    pub(crate) function: u64,
    /// Arguments, by their numbers, that look like pointers of veo_alloc_hmem: no address on the VE.
    pub(crate) tagged: Vec<(usize, u64)>,
    pub(crate) message: Vec<u8>,
    /// Where the buffers that come back belong, and their lengths.
    pub(crate) back: Vec<(Place, usize)>,
}

impl Args {
    fn set(&mut self, number: c_int, slot: Slot) -> Result<()> {
        let position = usize::try_from(number).ok();
        let number = position.filter(|number| *number < VEO_MAX_NUM_ARGS);
        let number = number.ok_or_else(|| {
            EINVAL.because(|| format!("arguments are counted from 0 to {}", VEO_MAX_NUM_ARGS - 1))
        })?;
        if self.0.len() <= number {
            self.0.resize(number + 1, None);
        }
        self.0[number] = Some(slot);
        Ok(())
    }

    /// The call of `function` with these arguments; buffers are read now.
    ///
    /// # Errors
    /// EINVAL when an argument between others was not set; E2BIG for more than 63 MiB of buffers.
    ///
    /// # Safety
    /// Buffers of intent IN and INOUT are readable and nobody writes them meanwhile.
    pub(crate) unsafe fn call(&self, function: u64) -> Result<Call> {
        let (mut arguments, mut back, mut all) = (Vec::with_capacity(self.0.len()), vec![], 0);
        for (number, slot) in self.0.iter().enumerate() {
            let slot = slot.ok_or_else(|| {
                let last = self.0.len() - 1;
                EINVAL.because(|| {
                    format!(
                        "argument {number} was not set, and argument {last} was: set all of them"
                    )
                })
            })?;
            arguments.push(match slot {
                Slot::Integer(value) => Argument::Integer(value),
                Slot::Floating(bits) => Argument::Floating(bits),
                Slot::Buffer { intent, start, len } => {
                    all = len.saturating_add(all);
                    if all > STACK_LIMIT {
                        let bound = STACK_LIMIT >> 20;
                        return Err(Errno(libc::E2BIG).because(|| {
                            format!("more than {bound} MiB of buffers: use memory of veo_alloc_mem")
                        }));
                    }
                    let given: &[u8] = if intent == VEO_INTENT_OUT || len == 0 {
                        &[]
                    } else {
                        // SAFETY: readable and left alone, by the caller's promise; not null, as `veo_args_set_stack` checked.
                        unsafe { std::slice::from_raw_parts(start, len) }
                    };
                    let returns = intent != VEO_INTENT_IN;
                    if returns {
                        back.push((Place(start), len));
                    }
                    Argument::Buffer {
                        len,
                        given,
                        back: returns,
                    }
                }
            });
        }
        let tagged = self
            .0
            .iter()
            .enumerate()
            .filter_map(|(number, slot)| match slot {
                Some(Slot::Integer(value)) if registry::is_tagged(*value) => Some((number, *value)),
                _ => None,
            });
        let tagged = tagged.collect();
        let request = Request::Call {
            function,
            arguments,
        };
        Ok(Call {
            function,
            tagged,
            message: request.encode(),
            back,
        })
    }
}

/// The arguments behind a caller's pointer.
///
/// # Safety
/// `args` is null or was made by `veo_args_alloc`, is not freed, and no other thread uses it during the answer's life.
pub(crate) unsafe fn arguments<'a>(args: *mut veo_args) -> Result<&'a mut Args> {
    // SAFETY: `veo_args_alloc` made it of a box of `Args`; the rest is the caller's promise.
    unsafe { args.cast::<Args>().as_mut() }.ok_or_else(|| {
        EINVAL.because(|| "a null pointer in place of what veo_args_alloc gave".into())
    })
}

/// `struct veo_args *veo_args_alloc(void)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_args_alloc() -> *mut veo_args {
    edge("veo_args_alloc", std::ptr::null_mut(), || {
        Ok(Box::into_raw(Box::new(Args::default())).cast())
    })
}

/// `void veo_args_free(struct veo_args *)`. Null is nothing to be freed.
///
/// # Safety
/// `args` is null or what `veo_args_alloc` gave, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_args_free(args: *mut veo_args) {
    if !args.is_null() {
        // SAFETY: made by `Box::into_raw` in `veo_args_alloc`; freed once, by the caller's promise.
        drop(unsafe { Box::from_raw(args.cast::<Args>()) });
    }
}

/// `void veo_args_clear(struct veo_args *)`
///
/// # Safety
/// As for `arguments`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_args_clear(args: *mut veo_args) {
    // SAFETY: the caller's promise.
    if let Ok(args) = unsafe { arguments(args) } {
        args.0.clear();
    }
}

/// Sets one argument; 0, or -1 and errno.
///
/// # Safety
/// As for `arguments`.
unsafe fn set(call: &str, args: *mut veo_args, number: c_int, slot: Slot) -> c_int {
    edge(call, -1, || {
        // SAFETY: the caller's promise.
        unsafe { arguments(args) }?.set(number, slot)?;
        Ok(0)
    })
}

/// The functions that set a number: integers are extended to 64 bits, by their sign if they have one.
macro_rules! setters {
    ($($name:ident, $type:ty, $value:ident => $slot:expr;)*) => { $(
        #[doc = concat!("`int ", stringify!($name), "(struct veo_args *, int, ", stringify!($type), ")`")]
        ///
        /// # Safety
        /// As for `arguments`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(args: *mut veo_args, number: c_int, $value: $type) -> c_int {
            // SAFETY: the caller's promise.
            unsafe { set(stringify!($name), args, number, $slot) }
        }
    )* };
}

setters! {
    veo_args_set_i64, i64, value => Slot::Integer(value as u64);
    veo_args_set_u64, u64, value => Slot::Integer(value);
    veo_args_set_i32, i32, value => Slot::Integer(value as u64);
    veo_args_set_u32, u32, value => Slot::Integer(value.into());
    veo_args_set_i16, i16, value => Slot::Integer(value as u64);
    veo_args_set_u16, u16, value => Slot::Integer(value.into());
    veo_args_set_i8, i8, value => Slot::Integer(value as u64);
    veo_args_set_u8, u8, value => Slot::Integer(value.into());
    veo_args_set_double, f64, value => Slot::Floating(value.to_bits());
    veo_args_set_float, f32, value => Slot::Floating(value.to_bits().into());
    veo_args_set_hmem, *mut c_void, value => Slot::Integer(value as u64);
}

/// `int veo_args_set_stack(struct veo_args *, enum veo_args_intent, int, char *, size_t)`
///
/// # Safety
/// As for `arguments`; `buffer` stays valid until the call it is used for is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_args_set_stack(
    args: *mut veo_args,
    intent: c_int,
    number: c_int,
    buffer: *mut c_char,
    len: usize,
) -> c_int {
    let known = [VEO_INTENT_IN, VEO_INTENT_INOUT, VEO_INTENT_OUT].contains(&intent);
    if !known || (buffer.is_null() && len > 0) {
        let why = "an intent that is none of VEO_INTENT_, or a null pointer in place of a buffer";
        let refused = || Err(EINVAL.because(|| why.into()));
        return edge("veo_args_set_stack", -1, refused);
    }
    let slot = Slot::Buffer {
        intent,
        start: buffer.cast(),
        len,
    };
    // SAFETY: the caller's promise.
    unsafe { set("veo_args_set_stack", args, number, slot) }
}
