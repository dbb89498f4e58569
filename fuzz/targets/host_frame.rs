//! What a host sends to a guest: frames and their messages.
#![no_main]

use cofferdam_guest::{FrameDecoder, HostMessage};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        let _ = HostMessage::decode(frame);
    }
});
