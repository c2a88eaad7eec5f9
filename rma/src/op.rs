//! The operators of the accumulate family (mpi-rma 3).

use windlass_runtime::update::UpdateOp;

/// What an accumulate does with the target's value `t` and the operand `o`.
///
/// | operators | elements |
/// | --- | --- |
/// | [`Sum`](Op::Sum), [`Prod`](Op::Prod) | integers, floats, [`Complex`](crate::Complex) |
/// | [`Min`](Op::Min), [`Max`](Op::Max) | integers, floats |
/// | [`Land`](Op::Land), [`Lor`](Op::Lor), [`Lxor`](Op::Lxor) | integers, [`Logical`](crate::Logical) |
/// | [`Band`](Op::Band), [`Bor`](Op::Bor), [`Bxor`](Op::Bxor) | integers |
/// | [`MinLoc`](Op::MinLoc), [`MaxLoc`](Op::MaxLoc) | pairs, as [`DoubleInt`](crate::DoubleInt) |
/// | [`Replace`](Op::Replace), [`NoOp`](Op::NoOp) | all |
///
/// Any other combination is [`Error::Operator`](crate::Error::Operator), and so is
/// [`NoOp`](Op::NoOp) in an accumulate that fetches nothing. Different operators may be mixed on
/// one element; each update is atomic all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// `t + o`; integers wrap. `MPI_SUM`
    Sum,
    /// `t * o`; integers wrap. `MPI_PROD`
    Prod,
    /// The smaller one. A NaN on either side is the result; -0 is less than +0. `MPI_MIN`
    Min,
    /// The larger one, with the same rules. `MPI_MAX`
    Max,
    /// 1 if both are not 0, else 0. `MPI_LAND`
    Land,
    /// 1 if either is not 0, else 0. `MPI_LOR`
    Lor,
    /// 1 if exactly one is not 0, else 0. `MPI_LXOR`
    Lxor,
    /// `t & o`, on the bits. `MPI_BAND`
    Band,
    /// `t | o`, on the bits. `MPI_BOR`
    Bor,
    /// `t ^ o`, on the bits. `MPI_BXOR`
    Bxor,
    /// The pair of the smaller value; of equal ones that of the lower index. NaN goes before any
    /// number. `MPI_MINLOC`
    MinLoc,
    /// The pair of the larger value, with the same rules. `MPI_MAXLOC`
    MaxLoc,
    /// `o`: an atomic put, per element. `MPI_REPLACE`
    Replace,
    /// `t`: an atomic get; only for the fetching forms. `MPI_NO_OP`
    NoOp,
}

impl Op {
    /// All operators.
    pub const ALL: [Op; 14] = [
        Op::Sum,
        Op::Prod,
        Op::Min,
        Op::Max,
        Op::Land,
        Op::Lor,
        Op::Lxor,
        Op::Band,
        Op::Bor,
        Op::Bxor,
        Op::MinLoc,
        Op::MaxLoc,
        Op::Replace,
        Op::NoOp,
    ];

    #[inline(always)]
    pub(crate) const fn update(self) -> UpdateOp {
        match self {
            Op::Sum => UpdateOp::Sum,
            Op::Prod => UpdateOp::Prod,
            Op::Min => UpdateOp::Min,
            Op::Max => UpdateOp::Max,
            Op::Land => UpdateOp::Land,
            Op::Lor => UpdateOp::Lor,
            Op::Lxor => UpdateOp::Lxor,
            Op::Band => UpdateOp::Band,
            Op::Bor => UpdateOp::Bor,
            Op::Bxor => UpdateOp::Bxor,
            Op::MinLoc => UpdateOp::MinLoc,
            Op::MaxLoc => UpdateOp::MaxLoc,
            Op::Replace => UpdateOp::Replace,
            Op::NoOp => UpdateOp::NoOp,
        }
    }
}
