//! Nodes have one form, and whatever else is read does no harm.

use proptest::{collection::vec, prelude::*};

use super::*;

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Head),
        (0_u8..3, any::<u32>(), any::<u32>()).prop_map(|(pack, offset, length)| {
            Place::Pack { pack: PackName::from_bytes([pack; 16]), offset, length }
        })
    ]
}

fn tree() -> impl Strategy<Value = Stored<TreeId>> {
    (any::<[u8; 32]>(), place())
        .prop_map(|(id, place)| Stored { id: TreeId::from_bytes(id), place })
}

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    let data = (any::<[u8; 32]>(), place(), 300_u32..100_000).prop_map(|(id, place, length)| {
        Extent::Data { chunk: Stored { id: ChunkId::from_bytes(id), place }, length }
    });
    let hole = (1_u64..1 << 40).prop_map(|length| Extent::Hole { length });
    // No hole follows a hole.
    vec((data, proptest::option::of(hole)), 1..5)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(a, b)| [Some(a), b]).flatten().collect())
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let xattr = (vec(1_u8..255, 1..9), vec(any::<u8>(), 0..9));
    (0_u16..=0o7777, any::<i64>(), vec(xattr, 0..3)).prop_map(|(mode, modified_ns, xattrs)| {
        let xattrs: std::collections::BTreeMap<_, _> = xattrs.into_iter().collect();
        let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
        Metadata { mode, modified_ns, xattrs }
    })
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let content = prop_oneof![
        vec(any::<u8>(), 0..MAX_INLINE_FILE)
            .prop_map(|bytes| (bytes.len() as u64, FileContent::Inline(bytes.into()))),
        extents().prop_map(|extents| {
            (extents.iter().map(Extent::length).sum(), FileContent::Extents(extents))
        }),
        vec((tree(), 1_u64 << 20..1 << 30), 1..3).prop_map(|lists| {
            (lists.iter().map(|(_, length)| length).sum(), FileContent::Lists(lists))
        }),
    ];
    prop_oneof![
        (content, any::<Option<u64>>()).prop_map(|((size, content), link_group)| {
            EntryKind::File { size, link_group, content }
        }),
        (tree(), 0_u64..1 << 40).prop_map(|(node, bytes)| {
            EntryKind::Directory { node, totals: Totals { bytes, ..Totals::default() } }
        }),
        vec(1_u8..255, 1..40).prop_map(|target| EntryKind::SymbolicLink { target }),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let names = || proptest::collection::btree_set("[a-z]{1,6}", 2..6);
    let leaf = (names(), vec((metadata(), kind()), 6)).prop_map(|(names, rest)| {
        let entries = names.into_iter().zip(rest).map(|(name, (metadata, kind))| Entry {
            name: Name::new(name.into_bytes()).unwrap(),
            metadata,
            kind,
        });
        Node::Leaf(entries.collect())
    });
    let branch = (names(), vec(tree(), 6)).prop_map(|(names, nodes)| {
        let pages = names
            .into_iter()
            .zip(nodes)
            .map(|(first, node)| Page { first: Name::new(first.into_bytes()).unwrap(), node });
        Node::Branch(pages.collect())
    });
    prop_oneof![leaf, branch, extents().prop_map(Node::Extents)]
}

/// Returns the canonical string and the places of a node.
fn encoded(node: &Node) -> (Vec<u8>, Vec<u8>) {
    let stored = Draft::of(node).stored();
    let (canonical, places) = split(&stored).unwrap();
    (canonical.to_vec(), places.to_vec())
}

fn canonical(node: &Node) -> Vec<u8> {
    Draft::of(node).canonical().to_vec()
}

proptest! {
    #[test]
    fn nodes_come_back(node in node()) {
        let (written, places) = encoded(&node);
        prop_assert_eq!(&written, &canonical(&node));
        prop_assert_eq!(Node::decode(&written, &places), Ok(node));
    }

    /// There is one way to write a node: whatever is read is written the same, so equal trees have equal ids.
    #[test]
    fn what_is_read_is_canonical(node in node(), at in any::<prop::sample::Index>(), to: u8, cut: bool) {
        let (mut written, places) = encoded(&node);
        let at = at.index(written.len());
        if cut {
            written.truncate(at);
        } else {
            written[at] = to;
        }
        if let Ok(read) = Node::decode(&written, &places) {
            prop_assert_eq!(canonical(&read), written);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(mut written in vec(any::<u8>(), 0..200), places in vec(any::<u8>(), 0..60)) {
        if let [version, kind, ..] = &mut written[..] {
            (*version, *kind) = (VERSION, *kind % 4);
        }
        if let Ok(read) = Node::decode(&written, &places) {
            prop_assert_eq!(canonical(&read), written);
        }
    }

    #[test]
    fn changed_places_do_no_harm(node in node(), at in any::<prop::sample::Index>(), to: u8) {
        let (written, mut places) = encoded(&node);
        let at = at.index(places.len());
        places[at] = to;
        if let Ok(read) = Node::decode(&written, &places) {
            prop_assert_eq!(canonical(&read), written, "places are no part of the id");
        }
    }
}
