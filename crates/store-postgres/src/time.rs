//! A [`Timestamp`] as PostgreSQL's `timestamptz`, to the microsecond.

use signalpost_core::Timestamp;
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid},
};

/// Microseconds from the Unix epoch to PostgreSQL's, the year 2000.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

/// A point in time in a statement or a row. `infinity` is [`signalpost_store::NEVER`], the largest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub Timestamp);

impl Time {
    /// Whether it is a time that ever comes.
    pub(crate) const fn is_finite(self) -> bool {
        self.0.as_micros() < i64::MAX - POSTGRES_EPOCH
    }

    /// As PostgreSQL counts.
    fn number(self) -> i64 {
        match self.0.as_micros() {
            i64::MAX => i64::MAX,
            micros => micros.saturating_sub(POSTGRES_EPOCH),
        }
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Postgres>>::encode_by_ref(&self.number(), buffer)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<'_, Postgres>>::decode(value)?;
        Ok(Self(Timestamp::from_micros(micros.saturating_add(POSTGRES_EPOCH))))
    }
}

#[cfg(test)]
mod tests {
    use signalpost_store::NEVER;

    use super::*;

    #[test]
    fn never_is_infinity_and_nothing_else_is() {
        assert_eq!(Time(NEVER).number(), i64::MAX);
        assert!(!Time(NEVER).is_finite());
        let late = Time(Timestamp::from_millis(4_000_000_000_000));
        assert!(late.is_finite() && late.number() < i64::MAX);
        assert_eq!(Time(Timestamp::from_micros(POSTGRES_EPOCH)).number(), 0);
    }
}
