//! W3C trace context: a delivery continues the trace of the request that brought its event.

use signalpost_core::{Entropy, EventId};

/// `00-`, 32 digits of the trace, 16 of the span and two of flags, with `-` between them.
pub(crate) type Header = [u8; 55];

/// The header of one attempt: the event's trace with a span of its own. Without a usable one, the event's id is the trace,
/// so that all its attempts are in one; not sampled, as nobody asked.
pub(crate) fn for_attempt(of_event: Option<&str>, event_id: EventId, entropy: &dyn Entropy) -> Header {
    let mut span = [0; 8];
    entropy.fill(&mut span);
    // A span id of zeros is not valid.
    let span = u64::from_be_bytes(span).max(1);
    let mut header = *b"00-00000000000000000000000000000000-0000000000000000-00";
    match of_event.and_then(parts) {
        Some((trace, flags)) => {
            header[3..35].copy_from_slice(trace.as_bytes());
            header[53..].copy_from_slice(flags.as_bytes());
        }
        None => write_hex(&mut header[3..35], event_id.uuid().as_bytes()),
    }
    write_hex(&mut header[36..52], &span.to_be_bytes());
    header
}

/// Two digits for each byte.
fn write_hex(to: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in to.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Trace id and flags of a header of any version (a later one is read as the first, as the specification says).
fn parts(header: &str) -> Option<(&str, &str)> {
    let mut fields = header.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let valid = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || fields.next().is_none())
        && is_hex(trace, 32)
        && trace.bytes().any(|byte| byte != b'0')
        && is_hex(span, 16)
        && span.bytes().any(|byte| byte != b'0')
        && is_hex(flags, 2);
    valid.then_some((trace, flags))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use signalpost_core::Timestamp;

    use super::*;

    #[derive(Debug)]
    struct Nines;
    impl Entropy for Nines {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0x99);
        }
    }

    fn of(header: Option<&str>) -> String {
        let header = for_attempt(header, EventId::from_parts(Timestamp::from_millis(1), [1; 10]), &Nines);
        String::from_utf8(header.to_vec()).unwrap()
    }

    #[test]
    fn the_trace_goes_on_with_a_new_span() {
        assert_eq!(
            of(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
            "00-0af7651916cd43dd8448eb211c80319c-9999999999999999-01"
        );
    }

    #[test]
    fn what_is_not_valid_gives_way_to_the_event_id() {
        let own = of(None);
        assert!(own.starts_with("00-000000000001") && own.ends_with("-9999999999999999-00"), "{own}");
        for bad in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(of(Some(bad)), own, "{bad}");
        }
    }
}
