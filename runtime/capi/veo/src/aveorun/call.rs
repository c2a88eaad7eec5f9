//! Entering a C function with arguments that are known at run time, by the x86-64 SysV ABI.
//!
//! Integers and pointers go to rdi, rsi, rdx, rcx, r8, r9, floating-point numbers to xmm0-7, in their order; what does
//! not fit goes to the stack, eight bytes each, in the order of all arguments (System V ABI, AMD64 supplement, 3.2.3).
//! The result is rax: an integer or a pointer of any width.
#![allow(unsafe_code)]

use crate::protocol::Argument;

/// The registers and the stack that a function finds.
#[derive(Debug, Clone, Default, PartialEq)]
#[repr(C)]
struct Frame {
    function: u64,
    integers: [u64; 6],
    floating: [u64; 8],
    stack: Vec64,
}

/// Pointer and length of the words on the stack; the owner is the caller of [`enter`].
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
struct Vec64 {
    words: *const u64,
    count: usize,
}

impl Default for Vec64 {
    fn default() -> Self {
        Self {
            words: std::ptr::null(),
            count: 0,
        }
    }
}

/// Buffers of a call: each aligned to 16 bytes, as on a stack.
struct Buffers {
    memory: Vec<u128>,
    /// Offset in bytes, length, whether it goes back.
    parts: Vec<(usize, usize, bool)>,
}

impl Buffers {
    fn new(arguments: &[Argument<'_>]) -> Self {
        let (mut parts, mut end) = (Vec::new(), 0_usize);
        for argument in arguments {
            if let Argument::Buffer { len, back, .. } = *argument {
                parts.push((end, len, back));
                // A buffer without bytes has an address of its own all the same.
                end += len.max(1).next_multiple_of(16);
            }
        }
        let mut memory = vec![0_u128; end / 16];
        let bytes = as_bytes(&mut memory);
        let given = arguments.iter().filter_map(|argument| match argument {
            Argument::Buffer { given, .. } => Some(given),
            _ => None,
        });
        for ((start, _, _), given) in parts.iter().zip(given) {
            bytes[*start..start + given.len()].copy_from_slice(given);
        }
        Self { memory, parts }
    }

    /// Addresses, in the order of the arguments.
    fn addresses(&mut self) -> Vec<u64> {
        let base = self.memory.as_mut_ptr() as usize;
        let starts = self.parts.iter();
        starts.map(|(start, _, _)| (base + start) as u64).collect()
    }

    /// The bytes that go back, one buffer after another.
    fn back(mut self) -> Vec<u8> {
        let bytes = as_bytes(&mut self.memory);
        let parts = self.parts.iter().filter(|(_, _, back)| *back);
        parts
            .flat_map(|(start, len, _)| &bytes[*start..start + len])
            .copied()
            .collect()
    }
}

fn as_bytes(words: &mut [u128]) -> &mut [u8] {
    let len = std::mem::size_of_val(words);
    // SAFETY: the same memory, exclusively borrowed for the same time; every byte of integers is initialised, every
    // pattern of bytes is an integer, and the alignment of bytes is 1.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) }
}

/// Where each argument goes.
fn lay_out(function: u64, arguments: &[Argument<'_>], addresses: &[u64]) -> (Frame, Vec<u64>) {
    let mut frame = Frame {
        function,
        ..Frame::default()
    };
    let (mut stack, mut addresses) = (Vec::new(), addresses.iter());
    let (mut integers, mut floating) = (0, 0);
    for argument in arguments {
        let (value, registers, used): (_, &mut [u64], _) = match argument {
            Argument::Integer(value) => (*value, &mut frame.integers, &mut integers),
            Argument::Floating(bits) => (*bits, &mut frame.floating, &mut floating),
            Argument::Buffer { .. } => {
                let address = addresses.next().copied().unwrap_or_default();
                (address, &mut frame.integers, &mut integers)
            }
        };
        match registers.get_mut(*used) {
            Some(register) => {
                *register = value;
                *used += 1;
            }
            None => stack.push(value),
        }
    }
    (frame, stack)
}

/// Calls `function`. Answers its result, and the buffers that go back.
///
/// # Safety
/// `function` is the address of a C function that takes these arguments and may be called on this thread.
pub(crate) unsafe fn call(function: u64, arguments: &[Argument<'_>]) -> (u64, Vec<u8>) {
    let mut buffers = Buffers::new(arguments);
    let (mut frame, stack) = lay_out(function, arguments, &buffers.addresses());
    frame.stack = Vec64 {
        words: stack.as_ptr(),
        count: stack.len(),
    };
    // SAFETY: `frame` is complete, and what it points to lives until the call is over: `stack` as a vector of this
    // function, the buffers as `buffers`, whose memory no reference of ours covers meanwhile. The rest is the caller's
    // promise.
    let result = unsafe { enter(&raw const frame) };
    (result, buffers.back())
}

/// # Safety
/// The frame's function may be called with what the frame holds; `stack` points to `count` readable words.
// The offsets are those of `Frame`; a test holds them. rbp keeps the way back across the call, as the ABI makes the
// callee preserve it. The direction flag is clear by the ABI. At most 2 KiB of stack are taken, less than a guard page.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *const Frame) -> u64 {
    std::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov r11, rdi",
        // Room for the words, then 16-byte alignment at the call; the words are at its lower end.
        "mov rcx, [r11 + 128]",
        "lea rax, [rcx * 8]",
        "sub rsp, rax",
        "and rsp, -16",
        "mov rsi, [r11 + 120]",
        "mov rdi, rsp",
        "rep movsq",
        "movq xmm0, qword ptr [r11 + 56]",
        "movq xmm1, qword ptr [r11 + 64]",
        "movq xmm2, qword ptr [r11 + 72]",
        "movq xmm3, qword ptr [r11 + 80]",
        "movq xmm4, qword ptr [r11 + 88]",
        "movq xmm5, qword ptr [r11 + 96]",
        "movq xmm6, qword ptr [r11 + 104]",
        "movq xmm7, qword ptr [r11 + 112]",
        "mov rdi, [r11 + 8]",
        "mov rsi, [r11 + 16]",
        "mov rdx, [r11 + 24]",
        "mov rcx, [r11 + 32]",
        "mov r8, [r11 + 40]",
        "mov r9, [r11 + 48]",
        // Vector registers in use, should the function take variable arguments.
        "mov eax, 8",
        "call qword ptr [r11]",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}

/// # Safety
/// None needed: it does nothing.
#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn enter(_frame: *const Frame) -> u64 {
    // The VH of a Vector Engine is an x86-64 host (ve-memory 1).
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_frame_is_where_the_instructions_look() {
        assert_eq!(offset_of!(Frame, function), 0);
        assert_eq!(offset_of!(Frame, integers), 8);
        assert_eq!(offset_of!(Frame, floating), 56);
        assert_eq!(offset_of!(Frame, stack) + offset_of!(Vec64, words), 120);
        assert_eq!(offset_of!(Frame, stack) + offset_of!(Vec64, count), 128);
    }

    extern "C" fn nothing() -> u64 {
        u64::MAX
    }

    #[allow(clippy::too_many_arguments)]
    extern "C" fn integers(a: i8, b: u8, c: i16, d: i32, e: i64, f: u64, g: i32, h: i64) -> i64 {
        let all = [
            a.into(),
            b.into(),
            c.into(),
            d.into(),
            e,
            f as i64,
            g.into(),
            h,
        ];
        all.into_iter().fold(0, |sum, value| sum * 10 + value)
    }

    #[allow(clippy::too_many_arguments)]
    extern "C" fn mixed(
        a: f32,
        b: i32,
        c: f64,
        d: f64,
        e: f64,
        f: f64,
        g: f64,
        h: f64,
        i: f64,
        j: f32,
        k: i64,
        l: f64,
    ) -> u64 {
        let floats = [a.into(), c, d, e, f, g, h, i, j.into(), l];
        let sum: f64 = floats.iter().sum();
        (sum * 100.0) as u64 + b as u64 + k as u64
    }

    extern "C" fn fill(buffer: *mut u8, len: u64, other: *const u8) -> u64 {
        assert_eq!((buffer as usize % 16, other as usize % 16), (0, 0));
        for at in 0..len as usize {
            // SAFETY: the test passes buffers of that length.
            unsafe { *buffer.add(at) = buffer.add(at).read() + *other };
        }
        len
    }

    fn run(function: usize, arguments: &[Argument<'_>]) -> (u64, Vec<u8>) {
        // SAFETY: each test passes what its function takes.
        unsafe { call(function as u64, arguments) }
    }

    #[test]
    fn integers_of_all_widths_arrive_in_registers_and_on_the_stack() {
        assert_eq!(run(nothing as *const () as usize, &[]), (u64::MAX, vec![]));
        let arguments: Vec<_> = [-1, 2, -3, 4, -5, 6, -7, 8]
            .into_iter()
            .map(|value: i64| Argument::Integer(value as u64))
            .collect();
        let expected = integers(-1, 2, -3, 4, -5, 6, -7, 8);
        let (result, _) = run(integers as *const () as usize, &arguments);
        assert_eq!(result as i64, expected);
    }

    #[test]
    fn floats_and_integers_are_counted_apart() {
        let single = |value: f32| Argument::Floating(value.to_bits().into());
        let double = |value: f64| Argument::Floating(value.to_bits());
        let arguments = [
            single(0.5),
            Argument::Integer(7),
            double(1.25),
            double(2.0),
            double(3.0),
            double(4.0),
            double(5.0),
            double(6.0),
            double(7.0),
            single(8.5),
            Argument::Integer(100_000),
            double(9.25),
        ];
        let expected = mixed(
            0.5, 7, 1.25, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5, 100_000, 9.25,
        );
        assert_eq!(run(mixed as *const () as usize, &arguments).0, expected);
    }

    #[test]
    fn buffers_go_there_and_only_the_named_ones_come_back() {
        let arguments = [
            Argument::Buffer {
                len: 5,
                given: &[1, 2, 3, 4, 5],
                back: true,
            },
            Argument::Integer(5),
            Argument::Buffer {
                len: 1,
                given: &[10],
                back: false,
            },
        ];
        let answer = run(fill as *const () as usize, &arguments);
        assert_eq!(answer, (5, vec![11, 12, 13, 14, 15]));
    }

    #[test]
    fn as_many_arguments_as_there_may_be() {
        extern "C" fn last(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64, seventh: u64) -> u64 {
            // The words that nobody declared lie above the seventh argument.
            let words = &raw const seventh;
            // SAFETY: only the declared one is read.
            unsafe { words.read() }
        }
        let arguments: Vec<_> = (0..256).map(Argument::Integer).collect();
        assert_eq!(run(last as *const () as usize, &arguments).0, 6);
        let (_, stack) = lay_out(1, &arguments, &[]);
        assert_eq!(stack, (6..256).collect::<Vec<_>>());
    }
}
