//! The operators of the accumulate family (mpi-rma 3).

use windlass_runtime::update::UpdateOp;

/// What an accumulate does with the target's value `t` and the operand `o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// `t + o`; integers wrap. `MPI_SUM`
    Sum,
    /// `o`: an atomic put, per element. `MPI_REPLACE`
    Replace,
    /// `t`: an atomic get; only for the fetching forms. `MPI_NO_OP`
    NoOp,
}

impl Op {
    #[inline(always)]
    pub(crate) const fn update(self) -> UpdateOp {
        match self {
            Op::Sum => UpdateOp::Sum,
            Op::Replace => UpdateOp::Replace,
            Op::NoOp => UpdateOp::NoOp,
        }
    }
}
