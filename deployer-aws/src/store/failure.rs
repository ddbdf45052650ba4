//! What DynamoDB says, in our words.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use deployer_core::{Effect, Error, ErrorKind};

use super::ATTEMPTS;
pub(super) use crate::failure::code;

/// Says an error of a call in our words.
pub(super) fn failed<E>(call: &'static str, table: &str, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let missing = code(&error) == Some("ResourceNotFoundException");
    let said = crate::failure::failed(call, format!("table {table}"), error);
    if missing {
        said.with_help("make it with `DynamoStore::ensure_table`, and check region and account")
    } else {
        said
    }
}

/// For the parts of requests whose builders ask at run time whether they are complete: ours are.
pub(super) fn complete<T>(error: BuildError) -> T {
    unreachable!("a part of a request is complete: {error}")
}

/// Why a transaction was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// The condition of an item did not hold.
    Condition,
    /// Something else was writing the same items: nothing is known yet.
    Contention,
    /// It was too much at once.
    Throttled,
}

impl Cancelled {
    /// How often it is tried: within three seconds, and where it is too much at once, not much more often than by the engine.
    pub(super) fn attempts(self) -> u32 {
        if self == Self::Throttled { 3 } else { ATTEMPTS }
    }

    /// The error of whoever has tried long enough. Nothing was written.
    pub(super) fn at_last(self, table: &str) -> Error {
        let error = match self {
            Self::Throttled => Error::new(ErrorKind::Throttled, "DynamoDB throttles"),
            _ => Error::new(ErrorKind::Unavailable, "others were writing the same items all the time"),
        };
        error.with_effect(Effect::None).with_resource(format!("table {table}"))
    }
}

/// Why a transaction was cancelled, if that is what happened: the reasons are those of
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>. The SDK's client does not try
/// it again by itself.
pub(super) fn cancelled(error: &SdkError<TransactWriteItemsError>) -> Option<Cancelled> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return None;
    };
    let has = |codes: &[&str]| {
        let mut reasons = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
        reasons.any(|code| codes.contains(&code))
    };
    if has(&["ConditionalCheckFailed"]) {
        return Some(Cancelled::Condition);
    }
    if has(&["TransactionConflict"]) {
        return Some(Cancelled::Contention);
    }
    has(&["ThrottlingError", "ProvisionedThroughputExceeded"]).then_some(Cancelled::Throttled)
}
