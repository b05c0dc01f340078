//! Which code an error has on the wire. Codes are the specification's: an orchestrator goes by them, a person by the sentence.

use tonic::Status;

use crate::container::mounter::MountFailure;
use crate::container::options::OptionError;
use crate::remote::operator::OperatorError;

impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Status {
        let sentence = error.to_string();
        match error {
            OperatorError::NotFound(_) => Status::not_found(sentence),
            OperatorError::Exists(_) => Status::already_exists(sentence),
            OperatorError::Refused(_) => Status::failed_precondition(sentence),
            OperatorError::Away(_) => Status::unavailable(sentence),
            OperatorError::Failed { .. } | OperatorError::Misfit => Status::internal(sentence),
        }
    }
}

impl From<OptionError> for Status {
    fn from(error: OptionError) -> Status {
        Status::invalid_argument(error.to_string())
    }
}

impl From<MountFailure> for Status {
    fn from(failure: MountFailure) -> Status {
        let sentence = failure.to_string();
        match failure {
            MountFailure::Refused(_) => Status::unavailable(sentence),
            MountFailure::NoVolume(_) => Status::not_found(sentence),
            MountFailure::Taken { .. } => Status::failed_precondition(sentence),
            MountFailure::Host { .. } => Status::internal(sentence),
        }
    }
}

/// # Errors
/// It is empty: `INVALID_ARGUMENT`.
pub(super) fn needed<'a>(what: &str, value: &'a str) -> Result<&'a str, Status> {
    match value {
        "" => Err(Status::invalid_argument(format!("{what} is missing"))),
        value => Ok(value),
    }
}
