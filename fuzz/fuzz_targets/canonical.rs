#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| signalpost_fuzzing::canonical(data));
