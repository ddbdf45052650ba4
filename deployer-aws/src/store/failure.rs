//! What DynamoDB says, in our words.

use aws_sdk_dynamodb::error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use deployer_core::{Effect, Error, ErrorKind, Retry};

/// Says an error of a call in our words.
pub(super) fn failed<E>(table: &str, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let said = match &error {
        SdkError::ConstructionFailure(_) => {
            Error::new(ErrorKind::Internal, "the request could not be made").with_effect(Effect::None)
        }
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            Error::new(ErrorKind::Unavailable, "the request could not be sent").with_effect(Effect::None)
        }
        SdkError::TimeoutError(_) => Error::new(ErrorKind::Timeout, "DynamoDB did not answer in time"),
        SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            Error::new(ErrorKind::Unavailable, "DynamoDB could not be reached")
        }
        SdkError::ServiceError(_) => by_code(code(&error).unwrap_or_default()),
        _ => Error::new(ErrorKind::Internal, "the request failed in a way that is not known"),
    };
    let said = match error.message() {
        Some(message) => said.with_context("DynamoDB said", message.to_owned()),
        None => said.with_context("reason", DisplayErrorContext(&error).to_string()),
    };
    let said = match error.request_id() {
        Some(id) => said.with_context("request", id.to_owned()),
        None => said,
    };
    said.with_resource(format!("table {table}"))
}

fn by_code(code: &str) -> Error {
    match code {
        "ThrottlingException" | "ProvisionedThroughputExceededException" | "RequestLimitExceeded" => {
            Error::new(ErrorKind::Throttled, "DynamoDB throttles").with_effect(Effect::None)
        }
        "ResourceNotFoundException" => Error::new(ErrorKind::NotFound, "the table does not exist")
            .with_effect(Effect::None)
            .with_help("make it with `DynamoStore::ensure_table`, and check region and account"),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "MissingAuthenticationTokenException" => {
            Error::new(ErrorKind::PermissionDenied, "the credentials do not allow it").with_effect(Effect::None)
        }
        "ItemCollectionSizeLimitExceededException" => Error::new(ErrorKind::Exhausted, "the table is full"),
        "ValidationException" => Error::new(ErrorKind::Internal, "DynamoDB refused the request as malformed"),
        "TransactionInProgressException" | "TransactionConflictException" => {
            Error::new(ErrorKind::Unavailable, "another request to the same items is under way")
        }
        "InternalServerError" | "ServiceUnavailable" => Error::new(ErrorKind::Unavailable, "DynamoDB had a failure"),
        _ => Error::new(ErrorKind::Unavailable, "DynamoDB refused the request").with_retry(Retry::Never),
    }
}

/// DynamoDB's name for what is wrong.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
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
