//! What a guest sends to a host: frames, their messages and trees. The guest is not trusted.
#![no_main]

use cofferdam_guest::{Change, FrameDecoder, GuestMessage, TreeDecoder};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        let _ = GuestMessage::decode(frame);
    }
    let _ = Change::decode_all(bytes);
    for mut tree in [TreeDecoder::with_content(), TreeDecoder::without_content()] {
        tree.push(bytes);
        while let Ok(Some(_)) = tree.next_record() {}
    }
});
