use signalpost_core::Timestamp;

use super::*;

/// Different bytes each time, the same in each run.
#[derive(Debug, Default)]
struct Counting(std::sync::atomic::AtomicU8);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

fn ring(ids: &[&str]) -> KeyRing {
    let keys: Vec<_> =
        ids.iter().map(|id| format!("{id}:{}", STANDARD.encode([id.bytes().next().unwrap_or_default(); 32]))).collect();
    KeyRing::parse(&keys.join(", ")).expect("keys")
}

fn tenant(number: i64) -> TenantId {
    TenantId::new(Timestamp::from_micros(number * 1_000_000), &Counting::default())
}

fn place(number: i64) -> Place<'static> {
    Place::Destination(tenant(1), DestinationId::new(Timestamp::from_micros(number * 1_000_000), &Counting::default()))
}

#[test]
fn what_is_sealed_opens_with_its_key_at_its_place() {
    let entropy = Counting::default();
    let (old, new, other) = (ring(&["a"]), ring(&["b", "a"]), ring(&["c"]));
    let sealed = old.seal(&entropy, place(1), b"secret");
    assert_eq!(sealed.key_id(), Some("a"));
    assert_eq!(**new.open(place(1), &sealed).expect("opens"), *b"secret");
    assert_eq!(other.open(place(1), &sealed), Err(OpenError::UnknownKey("a".into())));
    for elsewhere in [place(2), Place::Ingest(tenant(1)), Place::Answer { tenant: tenant(1), scope: "", key: "" }] {
        assert_eq!(old.open(elsewhere, &sealed), Err(OpenError::Forged), "{elsewhere:?}");
    }
    assert_eq!(new.seal(&entropy, place(1), b"secret").key_id(), Some("b"), "the newest seals");
    assert_ne!(sealed, old.seal(&entropy, place(1), b"secret"), "no nonce twice");
    assert!(!sealed.as_bytes().windows(6).any(|bytes| bytes == b"secret"));
}

#[test]
fn the_parts_of_a_place_do_not_run_together() {
    let (ring, entropy) = (ring(&["a"]), Counting::default());
    let answer = |scope, key| Place::Answer { tenant: tenant(1), scope, key };
    let sealed = ring.seal(&entropy, answer("ab", "c"), b"x");
    assert_eq!(ring.open(answer("a", "bc"), &sealed), Err(OpenError::Forged));
    assert!(ring.open(answer("ab", "c"), &sealed).is_ok());
}

#[test]
fn a_value_that_was_changed_anywhere_does_not_open() {
    let ring = ring(&["a", "b"]);
    let sealed = ring.seal(&Counting::default(), place(1), b"secret");
    for at in 0..sealed.as_bytes().len() {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[at] ^= 1;
        assert!(ring.open(place(1), &Sealed::new(bytes.into())).is_err(), "byte {at}");
    }
    for length in 0..sealed.as_bytes().len() {
        let cut = Sealed::new(Bytes::copy_from_slice(&sealed.as_bytes()[..length]));
        assert!(ring.open(place(1), &cut).is_err(), "{length} bytes");
    }
}

#[test]
fn a_destinations_secrets_are_read_however_they_are_kept() {
    let ring = ring(&["a"]);
    let Place::Destination(tenant, id) = place(1) else { unreachable!() };
    let headers = std::collections::BTreeMap::from([("X-A".to_owned(), Secret::new("1"))]);
    let secrets =
        DestinationSecrets { headers: headers.clone(), ..DestinationSecrets::signing(Secret::new("whsec_1")) };
    let sealed = Kept::Sealed(ring.seal_destination(&Counting::default(), tenant, id, &secrets));
    let plain = Kept::Plain { secret: Secret::new("whsec_1"), headers };
    for kept in [sealed, plain] {
        assert_eq!(ring.destination(tenant, id, &kept).as_ref(), Ok(&secrets));
    }
}

#[test]
fn a_list_of_keys_is_taken_or_refused_and_never_shown() {
    let good = KeyRing::generate("k1", &Counting::default());
    assert_eq!(KeyRing::parse(good.reveal()).expect("made").newest(), "k1");
    assert_eq!(format!("{:?}", ring(&["b", "a"])), r#"["b", "a"]"#);
    assert_eq!(ring(&["b", "a"]).ids().collect::<Vec<_>>(), ["b", "a"]);
    let short = format!("a:{}", STANDARD.encode([1; 31]));
    for (text, error) in [
        ("", KeyRingError::Empty),
        (" , ", KeyRingError::Empty),
        ("a", KeyRingError::Malformed(1)),
        (short.as_str(), KeyRingError::Malformed(1)),
        (&format!("{0},A{0}", good.reveal()), KeyRingError::Malformed(2)),
        (&format!("{0},{0}", good.reveal()), KeyRingError::Twice("k1".into())),
    ] {
        assert_eq!(KeyRing::parse(text).err(), Some(error), "{text}");
    }
}
