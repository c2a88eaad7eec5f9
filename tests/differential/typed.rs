//! Programs by `windlass::Window<T>` and its guards.

use windlass::{
    Comparable, Complex, DoubleInt, Epoch, FloatInt, Kind, Layout, LockKind, Logical, LongInt,
    Rank, Reducible, ShortInt, TwoInt, World,
};

use super::back::{Body, Ended, Own, Window};
use super::elem::Elem;
use super::guard::{Open, Several, bytes};
use super::program::{Memory, Program};
use crate::support::{Done, Failure};

/// An element type of a window.
pub trait Cell: Reducible {
    /// `compare_and_swap`, where the type has it.
    fn swap<K: Kind>(
        epoch: &Epoch<'_, Self, K>,
        values: (Self, Self),
        at: (Rank, usize),
    ) -> windlass::Result<Self>;
}

macro_rules! cells {
    ($($compared:ty),+; $($other:ty),+) => {
        $(impl Cell for $compared {
            fn swap<K: Kind>(
                epoch: &Epoch<'_, Self, K>,
                (compare, new): (Self, Self),
                (target, disp): (Rank, usize),
            ) -> windlass::Result<Self> {
                fn comparable<T: Comparable>() {}
                comparable::<$compared>();
                epoch.compare_and_swap(compare, new, target, disp)
            }
        })+
        $(impl Cell for $other {
            fn swap<K: Kind>(
                _: &Epoch<'_, Self, K>,
                _: (Self, Self),
                _: (Rank, usize),
            ) -> windlass::Result<Self> {
                unreachable!("not drawn for this type")
            }
        })+
    };
}

cells! {
    i8, u8, i16, u16, i32, u32, i64, u64, Logical;
    f32, f64, Complex<f32>, Complex<f64>, FloatInt, DoubleInt, LongInt, TwoInt, ShortInt
}

/// Runs `$body` with `$type` as the Rust type of an element.
macro_rules! with_type {
    ($elem:expr, $type:ident => $body:expr) => {{
        macro_rules! of {
            ($rust:ty) => {{
                type $type = $rust;
                $body
            }};
        }
        match $elem {
            Elem::I8 => of!(i8),
            Elem::U8 => of!(u8),
            Elem::I16 => of!(i16),
            Elem::U16 => of!(u16),
            Elem::I32 => of!(i32),
            Elem::U32 => of!(u32),
            Elem::I64 => of!(i64),
            Elem::U64 => of!(u64),
            Elem::F32 => of!(f32),
            Elem::F64 => of!(f64),
            Elem::ComplexF32 => of!(Complex<f32>),
            Elem::ComplexF64 => of!(Complex<f64>),
            Elem::Logical8 => of!(Logical),
            Elem::FloatInt => of!(FloatInt),
            Elem::DoubleInt => of!(DoubleInt),
            Elem::LongInt => of!(LongInt),
            Elem::TwoInt => of!(TwoInt),
            Elem::ShortInt => of!(ShortInt),
            other => unreachable!("{other:?} has no Rust type"),
        }
    }};
}

pub fn one(elem: Elem) -> Layout {
    with_type!(elem, T => Layout::of::<T>())
}

/// The window of a program.
pub fn window<'p>(
    world: &World,
    program: &'p Program,
) -> windlass::Result<Box<dyn Window<'p> + 'p>> {
    with_type!(program.elem, T => make::<T>(world, program))
}

fn make<'p, T: Cell>(
    world: &World,
    program: &'p Program,
) -> windlass::Result<Box<dyn Window<'p> + 'p>> {
    let len = program.parts[world.rank().0 as usize].bytes / size_of::<T>();
    let world = world.clone();
    Ok(if program.memory == Memory::Lent {
        let window = world.create(vec![T::zeroed(); len])?;
        let back = |memory: Vec<T>| Some(bytes(&memory));
        Box::new(Typed {
            world,
            window: Some(window),
            back,
        })
    } else {
        let window = match program.memory {
            Memory::Shared => world.allocate_shared::<T>(len)?,
            _ => world.allocate::<T>(len)?,
        };
        Box::new(Typed {
            world,
            window: Some(window),
            back: |()| None,
        })
    })
}

struct Typed<T: Cell, M: Send + 'static> {
    world: World,
    /// There but while it is locked for good.
    window: Option<windlass::Window<T, M>>,
    back: fn(M) -> Option<Vec<u8>>,
}

impl<T: Cell, M: Send + 'static> Typed<T, M> {
    fn window(&mut self) -> Result<&mut windlass::Window<T, M>, Failure> {
        Ok(self
            .window
            .as_mut()
            .ok_or("the window is locked for good")?)
    }

    fn taken(&mut self) -> Result<windlass::Window<T, M>, Failure> {
        Ok(self.window.take().ok_or("the window is locked for good")?)
    }
}

impl<'p, T: Cell, M: Send + 'static> Window<'p> for Typed<T, M> {
    fn fence(&mut self, asserting: bool, body: &mut Body<'_, 'p>) -> Ended<'p> {
        let world = self.world.clone();
        let mut epoch = self.window()?.fence()?;
        if asserting {
            epoch = epoch.next()?;
        }
        body(&mut Open::new(&world, &epoch))?;
        epoch.end()?;
        Ok(Vec::new())
    }

    fn pscw(
        &mut self,
        (access, exposed): (&[Rank], &[Rank]),
        asserting: bool,
        body: &mut Body<'_, 'p>,
    ) -> Ended<'p> {
        let all = self.world.group();
        let world = self.world.clone();
        let window = self.window()?;
        let exposure = window.post(&all.incl(exposed)?)?;
        let epoch = window.start(&all.incl(access)?)?;
        body(&mut Open::new(&world, &epoch))?;
        epoch.end()?;
        let mut tested = Some(exposure);
        while let Some(exposure) = tested {
            if !asserting {
                exposure.wait()?;
                break;
            }
            tested = exposure.test()?;
        }
        Ok(Vec::new())
    }

    fn lock_all(&mut self, standing: bool, body: &mut Body<'_, 'p>) -> Ended<'p> {
        if standing {
            let locked = self.taken()?.into_lock_all()?;
            body(&mut Open::new(&self.world, &locked.epoch()))?;
            self.window = Some(locked.unlock()?);
            return Ok(Vec::new());
        }
        let world = self.world.clone();
        let epoch = self.window()?.lock_all()?;
        body(&mut Open::new(&world, &epoch))?;
        epoch.end()?;
        Ok(Vec::new())
    }

    fn locks(&mut self, locks: &[(Rank, LockKind)], body: &mut Body<'_, 'p>) -> Ended<'p> {
        let world = self.world.clone();
        let (window, mut held) = (self.window()?, Vec::new());
        for &(target, kind) in locks {
            held.push(window.lock(target, kind)?);
        }
        let open = |lock| (windlass::Lock::<T>::target(lock), Open::new(&world, lock));
        body(&mut Several(held.iter().map(open).collect()))?;
        held.into_iter().try_for_each(windlass::Lock::end)?;
        Ok(Vec::new())
    }

    fn own(&mut self, body: &mut Own<'_>) -> Done {
        let mut own = self.window()?.lock_local()?;
        body(bytemuck::cast_slice_mut(&mut own))?;
        own.end()?;
        Ok(())
    }

    fn notified(&mut self, counts: &[(u32, u64)]) -> Done {
        let window = self.window()?;
        for (index, &(id, count)) in counts.iter().enumerate() {
            match index % 3 {
                0 => window.wait_notify(id, count)?,
                1 => while !window.test_notify(id, count)? {},
                _ => {
                    let mut left = count;
                    while left > 0 {
                        let (seen, taken) = window.wait_notify_any(&[id])?;
                        let right = seen == id && taken <= left;
                        assert!(
                            right,
                            "{taken} notifications under {seen} for {left} under {id}"
                        );
                        left -= taken;
                    }
                }
            }
            let more = window.notified(id)?;
            assert_eq!(more, 0, "{more} notifications too many under {id}");
        }
        Ok(())
    }

    fn free(mut self: Box<Self>) -> Result<Option<Vec<u8>>, Failure> {
        let back = self.back;
        Ok(back(self.taken()?.free()?))
    }
}
