//! The codes of our errors: stable, each with its status, and a page that explains it.

use http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $status:ident $name:literal $title:literal $help:literal;)*) => {
        /// What went wrong, in a word that clients may rely on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* #[doc = $help] $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it stands in answers.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// For people: the same for every problem of this code.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it means and what to do.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// From its name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    InvalidJson BAD_REQUEST "invalid_json" "Not JSON"
        "The body is not JSON: it breaks the grammar, is not UTF-8, or is nested deeper than 128 levels.";
    BadRequest BAD_REQUEST "bad_request" "Bad request"
        "The request itself is malformed: a header or the path cannot be read.";
    InvalidQuery BAD_REQUEST "invalid_query" "Bad query"
        "A query parameter is unknown, stands twice or has a value that is not allowed; or a cursor is used with other filters than those that it was made for.";
    Unauthorized UNAUTHORIZED "unauthorized" "Key missing or unknown"
        "Send a key: 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'.";
    Forbidden FORBIDDEN "forbidden" "Not in the key's scope"
        "The key is known, but may not do this.";
    SignatureInvalid FORBIDDEN "signature_invalid" "Signature missing or wrong"
        "The producers of this tenant sign their events ('ingest_signature'): the signature is missing, wrong or too old. Nothing of this request was taken.";
    SignatureReplayed FORBIDDEN "signature_replayed" "What is signed was taken before"
        "The signature is right, but what is signed was taken before. Sign a request anew for each try; where the scheme signs the body alone ('hmac'), repeat it with its 'Idempotency-Key', or give events a 'uid' and send no key. Nothing of this request was taken.";
    NotFound NOT_FOUND "not_found" "Not found"
        "There is nothing at this address, or nothing that this key may see.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "Method not allowed"
        "The address exists, but not with this method; the header 'Allow' lists those that it knows.";
    RequestTimeout REQUEST_TIMEOUT "request_timeout" "Request too slow"
        "The body did not arrive in time. Send it again.";
    Conflict CONFLICT "conflict" "Conflict"
        "The request does not fit the present state of what it is about. Read it again, then decide.";
    UidTaken CONFLICT "uid_taken" "uid is taken"
        "Another destination of this tenant has this uid.";
    InFlight CONFLICT "in_flight" "Request is out"
        "A request of this delivery is out at this moment. Ask again when it has ended.";
    AtMostOnce CONFLICT "at_most_once" "Sent once at most"
        "The delivery was to be sent once at most, and has ended, so that it is not retried. Where you know that it may be sent again, replay its dead letter, or its event with POST /v1/events/{id}/replay: that is a new delivery.";
    AlreadyReplayed CONFLICT "already_replayed" "Already replayed"
        "The dead letter was replayed before; 'detail' names the new delivery. Should that fail for good too, it is a dead letter of its own, under its own id.";
    AlreadyEnded CONFLICT "already_ended" "Already ended"
        "The delivery has ended; what ended cannot be changed. It can be sent again with retry.";
    Gone CONFLICT "gone" "No longer there"
        "What would be sent again is gone: its destination is deleted, or its event is past its retention.";
    SlugTaken CONFLICT "slug_taken" "slug is taken"
        "Another tenant has this slug, or has one still: a tenant that is being deleted keeps its slug until all of it is gone.";
    PayloadTooLarge PAYLOAD_TOO_LARGE "payload_too_large" "Too large"
        "The body is larger than is allowed.";
    UriTooLong URI_TOO_LONG "uri_too_long" "Address too long"
        "The address of the request, path and query together, is longer than 8,192 bytes.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "Unsupported content type"
        "The Content-Type of the body is not one that this address takes.";
    ValidationFailed UNPROCESSABLE_ENTITY "validation_failed" "Breaks a rule"
        "The body is JSON, but breaks a rule. 'errors' lists each breach with a JSON Pointer to its place.";
    IdempotencyMismatch UNPROCESSABLE_ENTITY "idempotency_mismatch" "Idempotency key was used with another body"
        "This Idempotency-Key was used for another request. Use a new key for a new request.";
    UidConflict UNPROCESSABLE_ENTITY "uid_conflict" "uid was used with other content"
        "An event with this uid and source was accepted before, with other content.";
    QuotaExceeded UNPROCESSABLE_ENTITY "quota_exceeded" "Quota is used up"
        "A quota of the tenant does not allow this, and waiting does not help: delete destinations, send smaller batches, or ask the operator.";
    TooManyRequests TOO_MANY_REQUESTS "too_many_requests" "Too many requests"
        "A quota is used up for now; 'Retry-After' tells when to come again.";
    Internal INTERNAL_SERVER_ERROR "internal" "Internal error"
        "A bug of ours. The operator finds its cause in the log under the request_id.";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "Unavailable"
        "The service cannot do this now. What was asked for may or may not have happened: send it again, with the same Idempotency-Key, after 'Retry-After' seconds.";
}
