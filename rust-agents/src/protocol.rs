//! What a request or an answer of Kafka's is made of exists as a value, so that one reader and one writer
//! serve all of them.
//!
//! <https://kafka.apache.org/protocol.html#protocol_types>

use crate::varints;

/// The type of one field.
#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt32,
    Float64,
    String(Length),
    Bytes(Length),
    /// Fields of a later version, which older ones pass over.
    TaggedFields,
    Array(Length, Box<Kind>),
    Struct(Vec<Kind>),
}

/// How the length of something is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    /// In two bytes; negative is null.
    Two,
    /// In four bytes; negative is null.
    Four,
    /// In seven bits a byte, one more than it is; zero is null.
    Compact,
}

impl Length {
    /// How many bytes it takes at least.
    const fn least_size(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Compact => 1,
        }
    }
}

/// In bytes: the client takes no more for a number of seven bits a byte.
const LONGEST_VARINT: u32 = 5;

/// A word of a description that means nothing where it stands; none: it ends too early.
#[derive(Debug, PartialEq)]
pub(crate) struct Misplaced<'a>(pub(crate) Option<&'a str>);

/// Deeper than any request; what reads and writes calls itself as often.
const DEEPEST: usize = 16;

/// Reads a description: the types of all fields in order, as words. An array is of the type that follows,
/// and what stands between parentheses is a type of its own.
pub(crate) fn described(description: &str) -> Result<Vec<Kind>, Misplaced<'_>> {
    let mut words = description.split_ascii_whitespace();
    let mut kinds = Vec::new();
    while let Some(word) = words.next() {
        kinds.push(Kind::described(word, &mut words, DEEPEST)?);
    }
    Ok(kinds)
}

impl Kind {
    fn described<'a>(
        word: &'a str,
        rest: &mut impl Iterator<Item = &'a str>,
        deepest: usize,
    ) -> Result<Self, Misplaced<'a>> {
        let deeper = deepest.checked_sub(1).ok_or(Misplaced(Some(word)))?;
        Ok(match word {
            "boolean" => Self::Boolean,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint32" => Self::UInt32,
            "float64" => Self::Float64,
            "string" => Self::String(Length::Two),
            "compact_string" => Self::String(Length::Compact),
            "bytes" => Self::Bytes(Length::Four),
            "compact_bytes" => Self::Bytes(Length::Compact),
            "tagged_fields" => Self::TaggedFields,
            "array" => Self::array(Length::Four, word, rest, deeper)?,
            "compact_array" => Self::array(Length::Compact, word, rest, deeper)?,
            "(" => {
                let mut kinds = Vec::new();
                loop {
                    match rest.next().ok_or(Misplaced(None))? {
                        ")" => break Self::Struct(kinds),
                        word => kinds.push(Self::described(word, rest, deeper)?),
                    }
                }
            }
            _ => return Err(Misplaced(Some(word))),
        })
    }

    fn array<'a>(
        length: Length,
        array: &'a str,
        rest: &mut impl Iterator<Item = &'a str>,
        deeper: usize,
    ) -> Result<Self, Misplaced<'a>> {
        let of = Self::described(rest.next().ok_or(Misplaced(None))?, rest, deeper)?;
        if of.least_size() == 0 {
            return Err(Misplaced(Some(array))); // any number of them would be in no bytes at all
        }
        Ok(Self::Array(length, Box::new(of)))
    }

    /// How many bytes one takes at least.
    pub(crate) fn least_size(&self) -> usize {
        match self {
            Self::Boolean | Self::Int8 | Self::TaggedFields => 1,
            Self::Int16 => 2,
            Self::Int32 | Self::UInt32 => 4,
            Self::Int64 | Self::Float64 => 8,
            Self::String(length) | Self::Bytes(length) | Self::Array(length, _) => {
                length.least_size()
            }
            Self::Struct(kinds) => kinds.iter().map(Self::least_size).sum(),
        }
    }
}

/// Too few bytes or wrong ones, or a value that is not of its type: the client itself says what is wrong.
#[derive(Debug, PartialEq)]
pub(crate) struct Unfit;

/// Reads fields, one after the other.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes there still are.
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Takes as many bytes as a number has.
    pub(crate) fn number<const N: usize>(&mut self) -> Result<[u8; N], Unfit> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Unfit)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes so many bytes.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Unfit> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unfit)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a text; None is null.
    pub(crate) fn string(&mut self, length: Length) -> Result<Option<&'a str>, Unfit> {
        let bytes = self.bytes(length)?;
        bytes.map(|it| std::str::from_utf8(it).map_err(|_| Unfit)).transpose()
    }

    /// Takes bytes; None is null.
    pub(crate) fn bytes(&mut self, length: Length) -> Result<Option<&'a [u8]>, Unfit> {
        let said = usize::try_from(self.length(length)?).ok();
        said.map(|it| self.take(it)).transpose()
    }

    /// Takes the number of an array's items, for all of which there are bytes; None is null.
    pub(crate) fn count(&mut self, length: Length, of: &Kind) -> Result<Option<usize>, Unfit> {
        let count = match self.length(length)? {
            -1 => None,
            count => Some(usize::try_from(count).unwrap_or(0)), // as the client has it
        };
        let least = count.unwrap_or(0).checked_mul(of.least_size()).ok_or(Unfit)?;
        if least > self.left() { Err(Unfit) } else { Ok(count) }
    }

    /// Takes a number of seven bits a byte.
    pub(crate) fn unsigned(&mut self) -> Result<u64, Unfit> {
        varints::take(&mut self.rest, LONGEST_VARINT).ok_or(Unfit)
    }

    /// Takes a length; a negative one is null.
    fn length(&mut self, length: Length) -> Result<i64, Unfit> {
        Ok(match length {
            Length::Two => i16::from_be_bytes(self.number()?).into(),
            Length::Four => i32::from_be_bytes(self.number()?).into(),
            Length::Compact => i64::try_from(self.unsigned()?).map_err(|_| Unfit)? - 1,
        })
    }
}

/// Writes a length; None is null.
pub(crate) fn push_length(
    size: Option<usize>,
    length: Length,
    to: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match length {
        Length::Two => {
            let size = size.map_or(Ok(-1), i16::try_from).map_err(|_| Unfit)?;
            to.extend_from_slice(&size.to_be_bytes());
        }
        Length::Four => {
            let size = size.map_or(Ok(-1), i32::try_from).map_err(|_| Unfit)?;
            to.extend_from_slice(&size.to_be_bytes());
        }
        Length::Compact => {
            let one_more = size.map_or(Some(0), |it| it.checked_add(1)).ok_or(Unfit)?;
            u32::try_from(one_more).map_err(|_| Unfit)?;
            varints::push(one_more, to);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::varints;
    use super::{Kind, Length, Misplaced, Reader, Unfit, described, push_length};

    fn pushed(push: impl Fn(&mut Vec<u8>) -> Result<(), Unfit>) -> Result<Vec<u8>, Unfit> {
        let mut to = Vec::new();
        push(&mut to).map(|()| to)
    }

    #[test]
    fn a_description_is_read_in_order_and_depth() {
        assert_eq!(described(""), Ok(vec![]));
        assert_eq!(
            described("int8  array compact_array ( string\ncompact_bytes ) boolean"),
            Ok(vec![
                Kind::Int8,
                Kind::Array(
                    Length::Four,
                    Box::new(Kind::Array(
                        Length::Compact,
                        Box::new(Kind::Struct(vec![
                            Kind::String(Length::Two),
                            Kind::Bytes(Length::Compact)
                        ]))
                    ))
                ),
                Kind::Boolean,
            ])
        );
    }

    #[test]
    fn what_is_no_description_is_none() {
        for (wrong, word) in [
            ("int32 it64", Some("it64")),
            (")", Some(")")),
            ("( int8", None),
            ("array", None),
            ("array )", Some(")")),
            ("array ( )", Some("array")), // two thousand million of them would be in four bytes
        ] {
            assert_eq!(described(wrong), Err(Misplaced(word)), "{wrong}");
        }
        for word in ["array", "("] {
            let bottomless = format!("{word} ").repeat(1_000_000);
            assert_eq!(described(&bottomless), Err(Misplaced(Some(word))));
        }
    }

    #[test]
    fn no_count_is_believed_without_bytes_for_all() {
        let pair = Kind::Struct(vec![Kind::Int32, Kind::Array(Length::Four, Box::new(Kind::Int8))]);
        for (bytes, length, count) in [
            (
                &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
                Length::Four,
                Ok(Some(2)),
            ),
            (&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Length::Four, Err(Unfit)),
            (&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0], Length::Four, Err(Unfit)),
            (&[0xff, 0xff, 0xff, 0xff], Length::Four, Ok(None)),
            (&[0xff, 0xff, 0xff, 0xfe], Length::Four, Ok(Some(0))),
            (&[0, 0, 0], Length::Four, Err(Unfit)),
            (&[2, 0, 0, 0, 0, 0, 0, 0, 0], Length::Compact, Ok(Some(1))),
            (&[3, 0, 0, 0, 0, 0, 0, 0, 0], Length::Compact, Err(Unfit)),
            (&[0xff, 0xff, 0xff, 0xff, 0x7f, 0], Length::Compact, Err(Unfit)),
            (&[0], Length::Compact, Ok(None)),
        ] {
            assert_eq!(Reader::new(bytes).count(length, &pair), count, "{bytes:?}");
        }
    }

    #[test]
    fn no_length_goes_beyond_the_bytes() {
        for (bytes, length, found) in [
            (&[0, 0, 0, 2, b'a', b'b', b'c'][..], Length::Four, Ok(Some(&b"ab"[..]))),
            (&[0, 0, 0, 2, b'a'], Length::Four, Err(Unfit)),
            (&[0x7f, 0xff, 0xff, 0xff], Length::Four, Err(Unfit)),
            (&[0x80, 0, 0, 0], Length::Four, Ok(None)),
            (&[3, b'a', b'b'], Length::Compact, Ok(Some(b"ab"))),
            (&[3, b'a'], Length::Compact, Err(Unfit)),
            (&[0], Length::Compact, Ok(None)),
            (&[], Length::Compact, Err(Unfit)),
        ] {
            assert_eq!(Reader::new(bytes).bytes(length), found, "{bytes:?}");
        }
        for (bytes, length, found) in [
            (&[0, 2, 0xc3, 0xa9][..], Length::Two, Ok(Some("é"))),
            (&[0, 1, 0xc3, 0xa9], Length::Two, Err(Unfit)), // no text
            (&[0x7f, 0xff], Length::Two, Err(Unfit)),
            (&[0xff, 0xff], Length::Two, Ok(None)),
            (&[3, 0xc3, 0xa9], Length::Compact, Ok(Some("é"))),
        ] {
            assert_eq!(Reader::new(bytes).string(length), found, "{bytes:?}");
        }
        assert_eq!(Reader::new(&[1]).take(usize::MAX), Err(Unfit));
    }

    #[test]
    fn a_number_of_seven_bits_a_byte_is_read_back() {
        for (number, bytes) in [
            (0, &[0][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (300, &[0xac, 2]),
            (0xffff_ffff, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut to = Vec::new();
            varints::push(number, &mut to);
            assert_eq!(to, bytes);
            assert_eq!(
                Reader::new(bytes).unsigned(),
                Ok(u64::try_from(number).unwrap_or_default())
            );
        }
        assert_eq!(Reader::new(&[0x80; 4]).unsigned(), Err(Unfit));
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]).unsigned(), Err(Unfit));
    }

    #[test]
    fn a_length_that_cannot_be_said_is_not_written() {
        let string = |size, length| pushed(|to| push_length(size, length, to));
        assert_eq!(string(Some(0x7fff), Length::Two), Ok(vec![0x7f, 0xff]));
        assert_eq!(string(Some(0x8000), Length::Two), Err(Unfit));
        assert_eq!(string(None, Length::Two), Ok(vec![0xff, 0xff]));
        assert_eq!(string(Some(0x8000), Length::Compact), Ok(vec![0x81, 0x80, 2]));
        let other = |size, length| pushed(|to| push_length(size, length, to));
        assert_eq!(other(Some(0x7fff_ffff), Length::Four), Ok(vec![0x7f, 0xff, 0xff, 0xff]));
        assert_eq!(other(Some(0x8000_0000), Length::Four), Err(Unfit));
        assert_eq!(other(None, Length::Four), Ok(vec![0xff; 4]));
        assert_eq!(other(None, Length::Compact), Ok(vec![0]));
        for much in [0xffff_ffff, usize::MAX] {
            assert_eq!(other(Some(much), Length::Compact), Err(Unfit));
        }
    }

    #[test]
    fn what_was_read_is_not_read_again() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.number(), Ok([1, 2]));
        assert_eq!((reader.left(), reader.number::<2>()), (1, Err(Unfit)));
        assert_eq!((reader.number(), reader.left()), (Ok([3]), 0));
    }
}
