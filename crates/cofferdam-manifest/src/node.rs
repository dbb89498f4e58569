//! [`Node`]: a YAML document as plain data, and where each of its parts stands in the text.
//!
//! `serde_yaml` keeps no positions in its values, but an error that a visitor raises carries the parser's own mark. So
//! [`locate`] reads the text once more, walks to the part asked for and fails there. Only a file with problems pays for
//! it, once a problem.

use std::{cell::Cell, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::{
    FieldPath,
    field_path::Segment,
    problem::{Location, Target},
};

/// Levels of mappings and lists that a file may nest.
const MAX_DEPTH: usize = 24;
/// Values that a file may hold, those that aliases repeat included.
const MAX_NODES: usize = 100_000;
/// Bytes of text that a file may hold, those that aliases repeat included.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// One value of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    /// In the order of the file; a key may be there more than once.
    Map(Vec<(String, Self)>),
}

impl Node {
    /// Reads the one document of a text.
    pub(crate) fn parse(yaml: &str) -> Result<Self, (Option<Location>, String)> {
        if let Some(location) = too_deep(yaml) {
            return Err((Some(location), too_deep_message()));
        }
        let budget = Budget { nodes: Cell::new(MAX_NODES), text: Cell::new(MAX_TEXT_BYTES) };
        let mut documents = serde_yaml::Deserializer::from_str(yaml);
        let Some(document) = documents.next() else { return Ok(Self::Null) };
        let root = NodeSeed { depth: MAX_DEPTH, budget: &budget }.deserialize(document).map_err(
            |error| {
                let location = location_of(&error);
                let mut message = error.to_string();
                if let Some(Location { line, column }) = location {
                    message = message.replace(&format!(" at line {line} column {column}"), "");
                }
                (location, message)
            },
        )?;
        if documents.next().is_some() {
            let message = "the file holds more than one document; keep one and remove the `---`";
            return Err((None, message.to_owned()));
        }
        Ok(root)
    }

    /// Says what kind of value this is, with an article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// Turns a path of names into a path of positions, as far as it leads.
    fn address(&self, path: &FieldPath, target: Target) -> (Vec<usize>, bool) {
        let mut node = self;
        let mut address = Vec::new();
        let last = path.segments().len().wrapping_sub(1);
        for (depth, segment) in path.segments().iter().enumerate() {
            let found = match (segment, node) {
                (Segment::Key(key), Self::Map(entries)) => {
                    let is = |(name, _): &(String, Self)| name == key || same_path(name, key);
                    if depth == last && target == Target::LastKey {
                        entries.iter().rposition(is)
                    } else {
                        entries.iter().position(is)
                    }
                    .map(|position| (position, &entries[position].1))
                }
                (Segment::Index(index), Self::List(elements)) => {
                    elements.get(*index).map(|element| (*index, element))
                }
                _ => None,
            };
            let Some((position, child)) = found else { return (address, false) };
            address.push(position);
            node = child;
        }
        (address, true)
    }
}

/// Entry keys such as `./a` and `a` name the same path, and problems name it in its normal form.
fn same_path(name: &str, key: &str) -> bool {
    cofferdam_core::WorkspacePath::new(name).is_ok_and(|path| path.as_str() == key)
}

/// Finds where a part of the text stands; the nearest part above it, if it is not there itself.
pub(crate) fn locate(
    yaml: &str,
    root: &Node,
    path: &FieldPath,
    target: Target,
) -> Option<Location> {
    let (address, whole) = root.address(path, target);
    // What is missing is reported at the key of the mapping that lacks it.
    let at_key = target != Target::Value || !whole;
    let document = serde_yaml::Deserializer::from_str(yaml).next()?;
    let error = Probe { address: &address, at_key: at_key && !address.is_empty() }
        .deserialize(document)
        .err()?;
    location_of(&error)
}

fn location_of(error: &serde_yaml::Error) -> Option<Location> {
    error.location().map(|at| Location { line: at.line(), column: at.column() })
}

fn too_deep_message() -> String {
    format!("the file nests more than {MAX_DEPTH} levels; make it flatter")
}

/// Finds a place with more open brackets than any honest file has.
///
/// The YAML scanner takes quadratic time in the depth of flow collections, before any limit of ours is asked, so this
/// comes first. Brackets inside of quotes and comments count too; a line resets them, since a flow collection that is
/// open over hundreds of lines with this many brackets is no honest file either.
fn too_deep(yaml: &str) -> Option<Location> {
    const MAX_OPEN: usize = 1000;
    let mut open: usize = 0;
    for (line, text) in yaml.lines().enumerate() {
        for (column, character) in text.chars().enumerate() {
            match character {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAX_OPEN {
                return Some(Location { line: line + 1, column: column + 1 });
            }
        }
    }
    None
}

struct Budget {
    nodes: Cell<usize>,
    text: Cell<usize>,
}

impl Budget {
    fn take<E: Error>(&self, text_bytes: usize) -> Result<(), E> {
        match (self.nodes.get().checked_sub(1), self.text.get().checked_sub(text_bytes)) {
            (Some(nodes), Some(text)) => {
                self.nodes.set(nodes);
                self.text.set(text);
                Ok(())
            }
            _ => Err(E::custom(format_args!(
                "the file holds more than {MAX_NODES} values or {} MiB of text with its aliases \
                 written out; use fewer aliases",
                MAX_TEXT_BYTES >> 20
            ))),
        }
    }
}

#[derive(Clone, Copy)]
struct NodeSeed<'b> {
    depth: usize,
    budget: &'b Budget,
}

impl NodeSeed<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(E::custom(too_deep_message())),
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a boolean, a list or a mapping with text keys")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.budget.take(0)?;
        Ok(Node::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.budget.take(0)?;
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        self.budget.take(0)?;
        Ok(Node::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        self.visit_i128(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.budget.take(0)?;
        Ok(Node::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.budget.take(value.len())?;
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        self.budget.take(0)?;
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            list.push(element);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.budget.take(0)?;
        let inner = self.deeper()?;
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(KeySeed(inner))? {
            map.push((key, entries.next_value_seed(inner)?));
        }
        Ok(Node::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom("YAML tags such as `!name` have no meaning here; remove the tag"))
    }
}

/// Reads a key, which must be text.
struct KeySeed<'b>(NodeSeed<'b>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text key; put quotes around a number, a boolean or null")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        self.0.budget.take(key.len())?;
        Ok(key.to_owned())
    }
}

/// Walks to an address and fails there.
struct Probe<'a> {
    address: &'a [usize],
    at_key: bool,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.address.is_empty() {
            deserializer.deserialize_any(Fail)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document that was read before")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let [position, rest @ ..] = self.address else { return Ok(()) };
        for _ in 0..*position {
            elements.next_element::<IgnoredAny>()?;
        }
        elements.next_element_seed(Probe { address: rest, at_key: self.at_key })?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let [position, rest @ ..] = self.address else { return Ok(()) };
        for _ in 0..*position {
            entries.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if rest.is_empty() && self.at_key {
            entries.next_key_seed(Probe { address: &[], at_key: false })?;
        } else {
            entries.next_key::<IgnoredAny>()?;
            entries.next_value_seed(Probe { address: rest, at_key: self.at_key })?;
        }
        Ok(())
    }
}

/// Takes nothing, so that the parser says where it stands.
struct Fail;

impl Visitor<'_> for Fail {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locates_keys_values_and_what_holds_the_missing() {
        let yaml = "a: 1\nb:\n  c: [x, y]\n  ./d: {e: f}\nb2: &m\n  z: 1\nb3: *m\n";
        let root = Node::parse(yaml).unwrap();
        let path = FieldPath::root();
        let check = |path: FieldPath, target: Target, line: usize, column: usize| {
            assert_eq!(
                locate(yaml, &root, &path, target),
                Some(Location { line, column }),
                "for {path} {target:?}"
            );
        };
        check(path.key("a"), Target::Key, 1, 1);
        check(path.key("a"), Target::Value, 1, 4);
        check(path.key("b").key("c").index(1), Target::Value, 3, 10);
        check(path.key("b").key("c"), Target::Key, 3, 3);
        check(path.key("b").key("d").key("e"), Target::Value, 4, 12);
        check(path.key("b").key("missing"), Target::Key, 2, 1);
        check(path.key("b3").key("z"), Target::Key, 6, 3);
        check(path.key("missing"), Target::Key, 1, 1);
    }

    #[test]
    fn refuses_what_is_no_plain_data() {
        let check = |yaml: &str, expect: &str| {
            let (location, message) = Node::parse(yaml).unwrap_err();
            let location = location.map(|at| format!("{}:{}", at.line, at.column));
            assert_eq!(format!("{} {message}", location.unwrap_or_default()), expect);
        };
        check("a: !tag x", "1:4 a: YAML tags such as `!name` have no meaning here; remove the tag");
        check(
            "a:\n  1: x",
            "2:3 a: invalid type: integer `1`, expected a text key; put quotes around a number, a boolean or null",
        );
        check(&"[".repeat(1001), "1:1001 the file nests more than 24 levels; make it flatter");
        check(
            &format!("{}1{}", "[".repeat(30), "]".repeat(30)),
            "1:25 .[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]: the file nests more than 24 levels; make it flatter",
        );
        check(
            "a: 1\n---\nb: 2",
            " the file holds more than one document; keep one and remove the `---`",
        );
        check("a: *x", "1:4 unknown anchor");
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            yaml.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let (_, message) = Node::parse(&yaml).unwrap_err();
        assert!(message.contains("use fewer aliases") || message.contains("repetition limit"));
    }
}
