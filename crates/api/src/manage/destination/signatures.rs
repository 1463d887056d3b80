//! `signatures`: how requests are signed.

use std::collections::BTreeSet;

use signalpost_core::signature::{Canonical, DigestEncoding, HmacScheme, SignatureScheme, default_signatures};
use signalpost_sender::headers;

use super::Fields;

/// The most schemes of a destination.
pub const MAX_SIGNATURES: usize = 10;
/// The most characters of a header's name.
pub const MAX_NAME: usize = 128;
/// The most characters before a digest.
pub const MAX_PREFIX: usize = 64;

#[derive(Clone, Copy)]
enum Name {
    Standard,
    Ed25519,
    Hmac,
}

/// Reads the list. No two schemes write the same header, and none writes one of `taken`, the names of `headers`.
pub fn read(fields: &mut Fields<'_>, taken: &BTreeSet<String>) -> Vec<SignatureScheme> {
    let Some(schemes) = fields.objects("signatures", 1..=MAX_SIGNATURES, scheme) else { return default_signatures() };
    let mut seen: Vec<(String, usize)> = Vec::new();
    for (index, scheme) in &schemes {
        let (member, header) = match scheme {
            SignatureScheme::Hmac(hmac) => ("header", hmac.header.to_ascii_lowercase()),
            // Both stand in `webhook-signature`, and a secret is of one kind.
            _ => ("scheme", signalpost_signing::SIGNATURE_HEADER.to_owned()),
        };
        let pointer = format!("{}/{index}/{member}", fields.pointer("signatures"));
        if let Some((_, first)) = seen.iter().find(|(name, _)| *name == header) {
            fields.wrong_at(pointer, format_args!("writes the same header as number {first} of the list, from 0"));
        } else if taken.iter().any(|name| name.eq_ignore_ascii_case(&header)) {
            fields.wrong_at(pointer, "is one of `headers`");
        } else {
            seen.push((header, *index));
        }
    }
    schemes.into_iter().map(|(_, scheme)| scheme).collect()
}

fn scheme(fields: &mut Fields<'_>) -> Option<SignatureScheme> {
    let names = [("standard", Name::Standard), ("standard_ed25519", Name::Ed25519), ("hmac", Name::Hmac)];
    let Some(name) = fields.choice("scheme", &names) else {
        if fields.is_absent("scheme") {
            fields.wrong("scheme", "is required");
        }
        // What else is there belongs to a scheme that is not known.
        fields.ask(&["header", "prefix", "encoding", "canonical"]);
        return None;
    };
    match name {
        Name::Standard => Some(SignatureScheme::Standard),
        Name::Ed25519 => Some(SignatureScheme::StandardEd25519),
        Name::Hmac => hmac(fields).map(SignatureScheme::Hmac),
    }
}

/// The members of `hmac`; of a tenant's `ingest_signature`, too.
pub fn hmac(fields: &mut Fields<'_>) -> Option<HmacScheme> {
    let header = fields.parsed("header", header_name);
    if fields.is_absent("header") {
        fields.wrong("header", "is required");
    }
    let prefix = fields.parsed("prefix", |text| {
        let fits = text.len() <= MAX_PREFIX
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && !text.starts_with(' ');
        fits.then(|| text.to_owned())
            .ok_or_else(|| format!("must be at most {MAX_PREFIX} visible ASCII characters, and not begin with a space"))
    });
    let encoding = fields.choice("encoding", &[("hex", DigestEncoding::Hex), ("base64", DigestEncoding::Base64)]);
    let canonical = fields.choice("canonical", &[("raw", Canonical::Raw), ("sorted_keys", Canonical::SortedKeys)]);
    Some(HmacScheme {
        header: header?,
        prefix: prefix.unwrap_or_default(),
        encoding: encoding.unwrap_or_default(),
        canonical: canonical.unwrap_or_default(),
    })
}

/// The name of a header that a destination may have.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    if text.len() > MAX_NAME {
        return Err(format!("may have at most {MAX_NAME} characters"));
    }
    headers::check(text, "").map(|()| text.to_owned()).map_err(|error| error.to_string())
}
