//! Where the things lie that a node names, as it is stored beside the canonical string.

use super::Place;
use crate::{
    id::PackName,
    wire::{Decoder, Encoder, Malformed},
};

/// Writes places: the packs, then for each place 0 for the head, or the number of its pack, offset and length.
pub(super) fn encode_places<'a>(places: impl Iterator<Item = &'a Place>) -> Vec<u8> {
    let mut packs: Vec<PackName> = Vec::new();
    let mut body = Encoder::default();
    for place in places {
        match place {
            Place::Head => body.byte(0),
            Place::Pack { pack, offset, length } => {
                // Neighbours lie in the same pack: the last is the first to look at.
                let known = packs.iter().rposition(|known| known == pack);
                let index = known.unwrap_or_else(|| {
                    packs.push(*pack);
                    packs.len() - 1
                });
                body.count(index + 1);
                body.number(u64::from(*offset));
                body.number(u64::from(*length));
            }
        }
    }
    let mut encoder = Encoder::default();
    encoder.count(packs.len());
    packs.iter().for_each(|pack| encoder.raw(pack.as_bytes()));
    encoder.raw(&body.into_bytes());
    encoder.into_bytes()
}

/// Reads places, one after the other.
pub(super) struct Places<'a> {
    packs: Vec<PackName>,
    body: Decoder<'a>,
}

impl<'a> Places<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Decoder::new(bytes);
        let count = body.count(PackName::BYTES)?;
        let packs =
            (0..count).map(|_| body.array().map(PackName::from_bytes)).collect::<Result<_, _>>()?;
        Ok(Self { packs, body })
    }

    pub(super) fn next(&mut self) -> Result<Place, Malformed> {
        let index = match self.body.number_u32()? {
            0 => return Ok(Place::Head),
            index => index as usize - 1,
        };
        let pack = *self.packs.get(index).ok_or(Malformed("a place is in no pack"))?;
        Ok(Place::Pack { pack, offset: self.body.number_u32()?, length: self.body.number_u32()? })
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        self.body.end()
    }
}
