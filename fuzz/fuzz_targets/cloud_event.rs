#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| signalpost_fuzzing::cloud_event(data));
