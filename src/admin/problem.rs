//! What went wrong, as RFC 9457 has it: `application/problem+json`, with a code that programs can go by.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::remote::meta::CallError;
use crate::remote::operator::OperatorError;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Where the kind of problem is described; `about:blank`: the title says it.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: &'static str,
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// One sentence for people.
    detail: String,
    /// What it is, for programs: stays the same from release to release.
    code: Code,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is not well-formed, or asks for what cannot be.
    Invalid,
    /// There is no key with it, or none that the cluster knows.
    Unauthenticated,
    /// The key does not allow it.
    Forbidden,
    NotFound,
    MethodNotAllowed,
    /// There is one of that name, and it is another than was asked for.
    Exists,
    /// It cannot be done as things stand: the volume is in use, or holds more than it is to.
    Conflict,
    /// The cluster does not answer, or has no leader. The same request can be made again.
    Unavailable,
    /// The cluster failed at it.
    Failed,
}

impl Problem {
    fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Problem {
        let title = status.canonical_reason().unwrap_or("Error");
        Problem { kind: "about:blank", title, status: status.as_u16(), detail: detail.into(), code }
    }

    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, Code::Invalid, detail)
    }

    pub fn not_json() -> Problem {
        let detail = "the request is to be JSON: `Content-Type: application/json`";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Invalid, detail)
    }

    pub fn too_large() -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::Invalid, "no request is so large")
    }

    pub fn too_slow() -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Invalid, "the request did not come to its end in time")
    }

    pub fn unauthenticated(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, Code::NotFound, detail)
    }

    pub fn method_not_allowed() -> Problem {
        let detail = "this cannot be done with it; /v1/openapi.json says what can";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, detail)
    }

    pub fn exists(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, Code::Exists, detail)
    }

    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, detail)
    }

    #[cfg(test)]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<OperatorError> for Problem {
    fn from(error: OperatorError) -> Problem {
        let (status, code) = match &error {
            OperatorError::NotFound(_) => (StatusCode::NOT_FOUND, Code::NotFound),
            OperatorError::Exists(_) => (StatusCode::CONFLICT, Code::Exists),
            OperatorError::Refused(_) => (StatusCode::CONFLICT, Code::Conflict),
            OperatorError::Away(CallError::Malformed(_)) => (StatusCode::BAD_GATEWAY, Code::Failed),
            OperatorError::Away(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            OperatorError::Failed { .. } | OperatorError::Misfit => (StatusCode::BAD_GATEWAY, Code::Failed),
        };
        Problem::new(status, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, MEDIA_TYPE);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"holdfast\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}
