//! What DynamoDB says, in our words.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use deployer_core::{Effect, Error, ErrorKind};

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

/// Whether the condition of a single write did not hold.
pub(super) fn is_refused<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    code(error) == Some("ConditionalCheckFailedException")
}

/// For the parts of requests whose builders ask at run time whether they are complete: ours are.
pub(super) fn complete<T>(error: BuildError) -> T {
    unreachable!("a part of a request is complete: {error}")
}

/// Why a transaction was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// The conditions of the items with these numbers did not hold.
    Conditions(Vec<usize>),
    /// Something else was writing the same items: nothing is known yet.
    Contention,
}

/// Why a transaction was cancelled, if that is what happened.
pub(super) fn cancelled(error: &SdkError<TransactWriteItemsError>) -> Option<Cancelled> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return None;
    };
    let codes = cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or("None"));
    let codes: Vec<&str> = codes.collect();
    let of = |code: &str| {
        codes.iter().enumerate().filter(|(_, one)| **one == code).map(|(index, _)| index).collect::<Vec<_>>()
    };
    let refused = of("ConditionalCheckFailed");
    if !refused.is_empty() {
        return Some(Cancelled::Conditions(refused));
    }
    (!of("TransactionConflict").is_empty()).then_some(Cancelled::Contention)
}

/// Somebody else was writing the same items, and nothing was written.
pub(super) fn contended(table: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "others were writing the same items all the time")
        .with_effect(Effect::None)
        .with_resource(format!("table {table}"))
}
