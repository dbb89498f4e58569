//! [`SseParser`]: server-sent events from bytes, however the network split them.
//!
//! Follows the event stream format of the WHATWG HTML standard as far as model servers use it: `event` and `data` fields,
//! comments, all three line endings, a byte order mark, several `data` lines in one event. `id` and `retry` are for
//! reconnecting, which a model call never does, and are left out. The crates for this either keep no bound on an event or
//! miss a line ending that is split over two packets, so the parser is here; it is a page long and pure.

use std::mem;

/// Most bytes that one event may have, its field names included.
pub(crate) const MAX_EVENT_BYTES: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SseEvent {
    /// The `event` field; empty if there was none.
    pub(crate) name: String,
    /// The `data` lines, joined by line feeds.
    pub(crate) data: String,
}

/// Why bytes are no event stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("an event is larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
    #[error("an event is not UTF-8: {0}")]
    NotUtf8(#[from] std::str::Utf8Error),
}

/// Takes bytes and gives events; holds at most one unfinished event.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    after_carriage_return: bool,
    past_first_line: bool,
}

impl SseParser {
    /// Takes the next bytes and adds the events that they complete to `events`.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        events: &mut impl Extend<SseEvent>,
    ) -> Result<(), SseError> {
        let mut rest = bytes;
        // A line feed right after a carriage return belongs to the same line ending, even in the next packet.
        if !rest.is_empty() && mem::take(&mut self.after_carriage_return) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.grow(&rest[..end])?;
            let ending = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
            self.after_carriage_return = rest[end] == b'\r' && end + 1 == rest.len();
            rest = &rest[end + ending..];
            events.extend(self.end_line()?);
        }
        self.grow(rest)
    }

    fn grow(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + self.event.data.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(SseError::TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, SseError> {
        let bytes = mem::take(&mut self.line);
        let mut line = std::str::from_utf8(&bytes)?;
        if !mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let event = mem::take(&mut self.event);
            return Ok(mem::take(&mut self.has_data).then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<SseEvent>, SseError> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events)?;
        }
        Ok(events)
    }

    fn check(stream: &str, expect: &[(&str, &str)]) {
        let events = parse(&[stream.as_bytes()]).unwrap();
        let found: Vec<_> = events.iter().map(|e| (e.name.as_str(), e.data.as_str())).collect();
        assert_eq!(found, expect, "{stream:?}");
    }

    #[test]
    fn reads_events() {
        check("data: a\n\n", &[("", "a")]);
        check("event: x\ndata: a\n\n", &[("x", "a")]);
        check("event:x\rdata:a\r\r", &[("x", "a")]);
        check("event: x\r\ndata: a\r\n\r\n", &[("x", "a")]);
        check("\u{feff}data: a\n\n", &[("", "a")]);
        check("data: a\ndata:  b\ndata\n\n", &[("", "a\n b\n")]);
        check(": keepalive\n\ndata: a\n\n", &[("", "a")]);
        check("event: ping\n\ndata: a\n\n", &[("", "a")]);
        check("id: 7\nretry: 10\nother\ndata: a\n\n\n\ndata: b\n\n", &[("", "a"), ("", "b")]);
        check("data: a", &[]);
        check("data: a\n", &[]);
        check("data:\n\n", &[("", "")]);
    }

    #[test]
    fn bounds_an_event_and_refuses_other_encodings() {
        let half = vec![b'x'; MAX_EVENT_BYTES / 2];
        let error = parse(&[b"data: ", &half, b"\ndata: ", &half, b"\n\n"]).unwrap_err();
        assert_eq!(error.to_string(), "an event is larger than 8388608 bytes");
        let error = parse(&[b"data: \xff\n\n"]).unwrap_err().to_string();
        assert!(error.starts_with("an event is not UTF-8: invalid utf-8 sequence"), "{error}");
    }

    fn stream() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "data: ?[a-zé€😀 ]{0,8}",
            "event: ?[a-z]{0,4}",
            ":[a-z ]{0,4}",
            Just(String::new()),
            "[a-z:]{0,6}"
        ];
        let ending = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        (any::<bool>(), prop::collection::vec((line, ending), 0..24)).prop_map(|(mark, lines)| {
            let start = if mark { "\u{feff}" } else { "" };
            lines.into_iter().fold(start.to_owned(), |text, (line, end)| text + &line + end)
        })
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(text in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let single: Vec<_> = bytes.chunks(1).collect();
            let whole = parse(&[bytes]).unwrap();
            prop_assert_eq!(&parse(&pieces).unwrap(), &whole);
            prop_assert_eq!(&parse(&single).unwrap(), &whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[&bytes]);
        }
    }
}
