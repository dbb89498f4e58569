//! What the fuzz targets of this repository reach: the decoders of a store's objects, without the hashes that stand before them.
//! No part of the interface.

use crate::{
    head,
    index::Segment,
    moved,
    node::{Draft, Node},
};

/// Decodes a node from its canonical bytes and its places. What is decoded is written as it was.
pub fn node(canonical: &[u8], places: &[u8]) {
    if let Ok(node) = Node::decode(canonical, places) {
        assert_eq!(Draft::of(&node).canonical(), canonical, "there is one way to write a node");
    }
}

/// Decodes the body of a head.
pub fn head(body: &[u8]) {
    let _ = head::decode_body(body);
}

/// Decodes a segment of the index.
pub fn segment(body: &[u8]) {
    let _ = Segment::decode(body);
}

/// Decodes what says where the frames of a pack went.
pub fn moved(body: &[u8]) {
    let _ = moved::decode_body(body);
}
