//! The reading of headers exists so that a usual event costs one call: whatever is odd about one is left
//! to Python, which can say what it is.

use crate::wire::{Ended, push_part, take_part};
use crate::{moments, traces};

/// The attributes of an event that are read here, in the order of `Attributes`.
const READ: [&str; 13] = [
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_correlationid",
    "ce_workflow",
    "ce_pass",
    "ce_status",
    "ce_deadline",
    "ce_hops",
    "ce_llm",
    "traceparent",
    "tracestate",
    "ce_rounds",
];
/// What only Python reads: an event that has it is left to it.
const BUDGET: &[u8] = b"ce_budget";
/// The attributes of an event that is written, in this order.
pub(crate) const WRITTEN: [&str; 15] = [
    "ce_id",
    "ce_time",
    "ce_correlationid",
    "ce_workflow",
    "ce_pass",
    "ce_rounds",
    "ce_causationid",
    "ce_causedigest",
    "ce_status",
    "ce_deadline",
    "ce_hops",
    "ce_budget",
    "ce_llm",
    "traceparent",
    "tracestate",
];
const TRACE: std::ops::Range<usize> = 10..12;
/// Each costs as much as three bytes more; Python's limit is a little higher.
const MAX_READ_BYTES: usize = 4_000;
const MAX_HEADERS: usize = 40;
const MAX_TRACESTATE_BYTES: usize = 512;
const HOPS_DIGITS: usize = 4;

/// A header's name and value.
pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);
/// The same, for those whom it is nothing that names are texts.
pub(crate) type RawHeader<'a> = (&'a [u8], Option<&'a [u8]>);

/// What the headers of a usual event say.
pub(crate) struct Attributes<'a> {
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) workflow_id: Option<&'a str>,
    pub(crate) workflow: Option<&'a str>,
    pub(crate) round: Option<&'a str>,
    pub(crate) status: Option<&'a str>,
    pub(crate) deadline: Option<(&'a str, i64)>,
    pub(crate) hops: Option<u16>,
    pub(crate) llm: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) tracestate: Option<&'a str>,
    pub(crate) rounds: Option<&'a str>,
}

/// Reads the headers of a whole event in which nothing is odd; None for all others.
pub(crate) fn read<'a>(
    headers: &(impl Iterator<Item = RawHeader<'a>> + Clone),
) -> Option<Attributes<'a>> {
    let mut texts: [Option<&'a str>; READ.len()] = [None; READ.len()];
    let (mut version, mut content) = (None, None);
    for (index, (name, value)) in headers.clone().enumerate() {
        let value = value.filter(|_| index < MAX_HEADERS)?;
        let before = match name {
            b"ce_specversion" => version.replace(value).is_some(),
            b"content-type" => content.replace(value).is_some(),
            BUDGET => return None,
            _ => match READ.iter().position(|known| known.as_bytes() == name) {
                Some(at) => texts.get_mut(at)?.replace(std::str::from_utf8(value).ok()?).is_some(),
                None => headers.clone().take(index).any(|(before, _)| before == name),
            },
        };
        // A name that is there twice is odd, whichever it is.
        if before {
            return None;
        }
    }
    let usual = version == Some(b"1.0") && content.is_none_or(|it| it == b"application/json");
    let bytes = texts
        .iter()
        .enumerate()
        .filter(|(at, _)| !TRACE.contains(at))
        .filter_map(|(_, it)| it.map(|text| text.len() + 3))
        .sum::<usize>();
    if !usual || bytes > MAX_READ_BYTES {
        return None;
    }
    typed(texts)
}

fn typed<'a>(texts: [Option<&'a str>; READ.len()]) -> Option<Attributes<'a>> {
    let [
        id,
        source,
        kind,
        workflow_id,
        workflow,
        round,
        status,
        deadline,
        hops,
        llm,
        traceparent,
        tracestate,
        rounds,
    ] = texts;
    let named = |it: Option<&'a str>| it.filter(|text| !text.is_empty());
    Some(Attributes {
        id: named(id)?,
        source: named(source)?,
        kind: named(kind)?,
        workflow_id: named(workflow_id),
        workflow: named(workflow),
        round: named(round),
        status: named(status),
        deadline: match deadline {
            None => None,
            Some(text) => Some((text, moments::milliseconds(text)?)),
        },
        hops: match hops {
            None => None,
            Some(text) if text.len() <= HOPS_DIGITS => Some(unsigned(text)?),
            Some(_) => return None,
        },
        llm,
        traceparent: match traceparent {
            Some(text) if !traces::is_usual(text) => return None,
            usual => usual,
        },
        tracestate: match tracestate {
            Some(text) if text.len() > MAX_TRACESTATE_BYTES || !text.is_ascii() => return None,
            usual => usual.filter(|_| traceparent.is_some()),
        },
        rounds: named(rounds),
    })
}

fn unsigned(text: &str) -> Option<u16> {
    text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The headers of a record, as they stand in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    count: usize,
}

impl Encoded {
    /// Reads so many back, in no more memory than they need. A name that is no text, as some clients can
    /// write it, becomes one: it says nothing to us, and its record is no worse for it.
    pub(crate) fn take(from: &mut &[u8], count: usize) -> Result<Self, Ended> {
        let all = *from;
        let mut are_texts = true;
        for _ in 0..count {
            let name = take_part(from)?.ok_or(Ended)?;
            are_texts &= std::str::from_utf8(name).is_ok();
            take_part(from)?;
        }
        let (mut taken, _) = all.split_at_checked(all.len() - from.len()).ok_or(Ended)?;
        if are_texts {
            return Ok(Self { bytes: taken.to_vec(), count });
        }
        let mut mended = Self::default();
        for _ in 0..count {
            let name = take_part(&mut taken)?.unwrap_or_default();
            mended.push(&String::from_utf8_lossy(name), take_part(&mut taken)?);
        }
        Ok(mended)
    }

    /// Takes one more.
    pub(crate) fn push(&mut self, name: &str, value: Option<&[u8]>) {
        push_part(Some(name.as_bytes()), &mut self.bytes);
        push_part(value, &mut self.bytes);
        self.count += 1;
    }

    /// Begins with the same ones, with room for so many bytes more.
    pub(crate) fn begin(&self, more: usize) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + more);
        bytes.extend_from_slice(&self.bytes);
        Self { bytes, count: self.count }
    }

    /// All of them, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many they are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Gives them one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Header<'_>> {
        self.raw().map_while(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    /// Gives them one by one, as they stand there.
    pub(crate) fn raw(&self) -> impl Iterator<Item = RawHeader<'_>> + Clone {
        let mut rest = self.bytes();
        std::iter::from_fn(move || Some((take_part(&mut rest).ok()??, take_part(&mut rest).ok()?)))
    }
}
