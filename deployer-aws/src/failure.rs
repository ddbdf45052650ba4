//! What AWS says, in our words.

use aws_sdk_ecs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::RequestId;
use deployer_core::{Effect, Error, ErrorKind, Retry};

/// What AWS says of something that was made a moment ago, and that not all of its parts know of yet.
const NOT_YET: [&str; 5] = [
    "does not have an associated load balancer",
    "unable to assume",
    "Unable to assume",
    "verify that the ECS service role being passed",
    "is still being created",
];

/// Says an error of a call in our words. The call is named as IAM names it, such as `ecs:UpdateService`: that is what a
/// policy must allow.
pub(crate) fn failed<E>(call: &'static str, resource: impl Into<String>, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    let said = match &error {
        SdkError::ConstructionFailure(_) => {
            Error::new(ErrorKind::Internal, "the request could not be made").with_effect(Effect::None)
        }
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            Error::new(ErrorKind::Unavailable, "the request could not be sent").with_effect(Effect::None)
        }
        SdkError::TimeoutError(_) => Error::new(ErrorKind::Timeout, "AWS did not answer in time"),
        SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            Error::new(ErrorKind::Unavailable, "AWS could not be reached")
        }
        SdkError::ServiceError(_) => {
            refused(call, code(&error).unwrap_or_default(), error.message().unwrap_or_default())
        }
        _ => Error::new(ErrorKind::Internal, "the request failed in a way that is not known"),
    };
    let said = match error.message() {
        Some(message) => said.with_context("AWS said", message.to_owned()),
        None => said.with_context("reason", DisplayErrorContext(&error).to_string()),
    };
    let said = match error.request_id() {
        Some(id) => said.with_context("request", id.to_owned()),
        None => said,
    };
    said.with_context("call", call).with_resource(resource)
}

/// A part of a request that the SDK does not take: a defect of this crate.
pub(crate) fn incomplete(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "a part of a request is incomplete").with_source(error)
}

/// AWS's name for what is wrong.
pub(crate) fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Whether AWS calls it so.
pub(crate) fn is<E: ProvideErrorMetadata>(error: &SdkError<E>, codes: &[&str]) -> bool {
    code(error).is_some_and(|code| codes.contains(&code))
}

/// An error that AWS answered: nothing was done.
fn refused(call: &str, code: &str, message: &str) -> Error {
    let error = match code {
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException" => Error::new(ErrorKind::Throttled, "AWS throttles"),
        "AccessDeniedException"
        | "AccessDenied"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "MissingAuthenticationTokenException" => {
            Error::new(ErrorKind::PermissionDenied, "the credentials do not allow it").with_help(format!(
                "the deploying program needs {call}; `deployer_aws::policy` prints all that it needs"
            ))
        }
        "InternalServerError" | "ServerException" | "InternalFailure" | "ServiceUnavailable" | "InternalError" => {
            // It may have been done all the same.
            return Error::new(ErrorKind::Unavailable, "AWS had a failure");
        }
        _ if NOT_YET.iter().any(|words| message.contains(words)) => {
            Error::new(ErrorKind::Unavailable, "AWS does not know yet what was made a moment ago")
        }
        // The same transaction, sent before, is under way: it may be carried out yet.
        "TransactionInProgressException" => {
            return Error::new(ErrorKind::Unavailable, "the request is still under way");
        }
        "TransactionConflictException" | "ConcurrentUpdateException" | "PriorityInUse" | "ResourceInUse" => {
            Error::new(ErrorKind::Unavailable, "something else is under way there")
        }
        "TooManyRules"
        | "TooManyTargets"
        | "TooManyTargetGroups"
        | "TooManyListeners"
        | "TooManyRegistrationsForTargetId"
        | "TooManyUniqueTargetGroupsPerLoadBalancer"
        | "LimitExceededException"
        | "ItemCollectionSizeLimitExceededException" => {
            Error::new(ErrorKind::Exhausted, "a quota of the account is used up")
                .with_help("ask AWS for a higher quota, or remove what is not needed")
        }
        "DuplicateTargetGroupName" | "RepositoryAlreadyExistsException" | "ImageTagAlreadyExistsException" => {
            Error::new(ErrorKind::AlreadyExists, "something else has the name")
        }
        _ if code.contains("NotFound") || code.contains("NotActive") => {
            Error::new(ErrorKind::NotFound, "it does not exist").with_help("check region, account and environment")
        }
        "ValidationException"
        | "ValidationError"
        | "InvalidParameterException"
        | "ClientException"
        | "InvalidParameter" => Error::new(ErrorKind::InvalidInput, "AWS refused the request"),
        _ => Error::new(ErrorKind::Unavailable, "AWS refused the request").with_retry(Retry::Never),
    };
    error.with_effect(Effect::None)
}
