//! Errors as RFC 9457 has them: `application/problem+json`.
//!
//! A handler returns a [`Problem`]; the edge (`crate::edge`) adds the request's id and turns what axum itself answers
//! (404, 405, rejections, panics) into problems, too. No detail holds a stack, SQL or an address of ours: what the
//! operator needs goes to the log.

mod code;
mod page;

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
pub use code::Code;
use http::{HeaderValue, header};
pub use page::explain;
use serde::Serialize;
use signalpost_store::StoreError;

use crate::quota::RateLimit;

/// The media type of problems.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// At most so many errors are listed.
const MOST_ERRORS: usize = 100;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) to its place in the body; empty for the whole.
    pub pointer: String,
    /// What is wrong.
    pub detail: String,
}

impl FieldError {
    /// At that place, that is wrong.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub code: Code,
    /// What is wrong this time.
    pub detail: Cow<'static, str>,
    /// Every breach, for [`Code::ValidationFailed`].
    pub errors: Vec<FieldError>,
    /// In seconds.
    pub retry_after: Option<u32>,
    /// Of [`Code::TooManyRequests`]: how the quota stands.
    pub quota: Option<RateLimit>,
}

/// Its JSON.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// A page that explains the code.
    #[serde(rename = "type")]
    #[schema(example = "/problems/validation_failed")]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: Cow<'static, str>,
    /// Stable; what a program looks at.
    #[schema(example = "validation_failed")]
    pub code: &'static str,
    /// Every breach of a rule, where that is the problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
    /// For the operator's log. Items of a batch leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem with nothing but its text.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None, quota: None }
    }

    /// 422: these rules are broken.
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.pointer.is_empty() => format!("The body {}.", only.detail),
            [only] => format!("`{}` {}.", only.pointer, only.detail),
            several => format!("{} rules are broken; see errors.", several.len()),
        };
        errors.truncate(MOST_ERRORS);
        Self { errors, ..Self::new(Code::ValidationFailed, detail) }
    }

    /// 422: this rule is broken there.
    pub fn invalid_at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(pointer, detail)])
    }

    /// The same of a part of the body: what is wrong lies below there.
    #[must_use]
    pub fn below(mut self, pointer: &str) -> Self {
        if self.code != Code::ValidationFailed {
            return self;
        }
        self.errors.iter_mut().for_each(|error| error.pointer.insert_str(0, pointer));
        Self::invalid(self.errors)
    }

    /// 400: the body is not JSON.
    pub fn not_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidJson, detail)
    }

    /// 400: the query is not right.
    pub fn query(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidQuery, detail)
    }

    /// 404, the same for what does not exist and what belongs to another tenant.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// 413: more than so many bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(Code::PayloadTooLarge, format!("The body is larger than {limit} bytes."))
    }

    /// 503: nothing is known about the outcome.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(1), ..Self::new(Code::Unavailable, detail) }
    }

    /// 500. The cause goes to the log here, and nowhere else.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "internal error");
        Self::new(Code::Internal, "Something went wrong on our side.")
    }

    /// Its body.
    pub fn body(&self, request_id: Option<&str>) -> ProblemBody {
        ProblemBody {
            kind: format!("/problems/{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str(),
            errors: self.errors.clone(),
            request_id: request_id.map(str::to_owned),
        }
    }

    /// The answer, with the request's id.
    pub fn respond(self, request_id: Option<&str>) -> Response {
        // Serialising strings and numbers into memory does not fail.
        let body = serde_json::to_vec(&self.body(request_id)).unwrap_or_default();
        let mut response = (self.code.status(), [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(quota) = self.quota {
            quota.write(headers);
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"signalpost\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(None)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(error = %cause, "the store is unavailable");
                Self::unavailable("The store does not take this now: it is away, busy, or out of space.")
            }
            StoreError::Data(cause) => {
                tracing::warn!(error = %cause, "the store refused data that had passed validation");
                Self::invalid_at("", "holds a value that cannot be stored")
            }
            StoreError::Internal(cause) => Self::internal(&cause),
        }
    }
}
