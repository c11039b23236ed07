//! The texts of an event are kept as places in the record that says them: most are never looked at, and
//! tens of thousands of events may wait for their answers.

use pyo3::prelude::*;

use super::records::Record;

/// Which text of an event.
#[derive(Clone, Copy)]
pub(super) enum Name {
    Id,
    Source,
    Kind,
    WorkflowId,
    Workflow,
    Round,
    Status,
    Deadline,
    Llm,
    Traceparent,
    Tracestate,
    Rounds,
}

const NAMES: usize = Name::Rounds as usize + 1;

/// One of each, in the order of their names.
pub(super) type All<'a> = [Option<&'a str>; NAMES];

/// All texts of one event.
pub(super) struct Texts {
    kept: Kept,
    places: [Place; NAMES],
}

enum Kept {
    InHeaders(Py<Record>),
    Here(Box<str>),
}

#[derive(Clone, Copy)]
struct Place {
    begin: u16,
    end: u16,
}

/// There is none: what begins after its end is nowhere.
const NOWHERE: Place = Place { begin: 1, end: 0 };

impl Texts {
    /// Finds texts in the headers of a record, of which they are parts. None: they are not, or too far behind
    /// its beginning.
    pub(super) fn in_headers(record: &Bound<'_, Record>, texts: All<'_>) -> Option<Self> {
        let headers = record.get().headers().bytes();
        let (begin, size) = (headers.as_ptr().addr(), headers.len());
        let mut places = [NOWHERE; NAMES];
        for (place, text) in places.iter_mut().zip(texts) {
            if let Some(text) = text {
                // Where its bytes are the headers' own, they are the same ones.
                let at = text.as_ptr().addr().checked_sub(begin)?;
                (at <= size && text.len() <= size - at).then_some(())?;
                *place = Place::new(at, text.len())?;
            }
        }
        Some(Self { kept: Kept::InHeaders(record.clone().unbind()), places })
    }

    /// Keeps texts. None: they are longer than a place can say.
    pub(super) fn here(texts: All<'_>) -> Option<Self> {
        let mut all = String::with_capacity(texts.iter().flatten().map(|it| it.len()).sum());
        let mut places = [NOWHERE; NAMES];
        for (place, text) in places.iter_mut().zip(texts) {
            if let Some(text) = text {
                *place = Place::new(all.len(), text.len())?;
                all.push_str(text);
            }
        }
        Some(Self { kept: Kept::Here(all.into()), places })
    }

    /// Gives one, if there is one of that name.
    pub(super) fn get(&self, name: Name) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// Gives one as it stands in a header.
    pub(super) fn bytes(&self, name: Name) -> Option<&[u8]> {
        let Place { begin, end } = *self.places.get(name as usize)?;
        let place = usize::from(begin)..usize::from(end);
        match &self.kept {
            Kept::Here(all) => all.as_bytes().get(place),
            Kept::InHeaders(record) => record.get().headers().bytes().get(place),
        }
    }

    /// Replaces one. None: together they are longer than a place can say.
    pub(super) fn set(&mut self, name: Name, text: Option<&str>) -> Option<()> {
        let mut texts = self.all();
        *texts.get_mut(name as usize)? = text;
        *self = Self::here(texts)?;
        Some(())
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        let kept = match &self.kept {
            Kept::Here(all) => Kept::Here(all.clone()),
            Kept::InHeaders(record) => Kept::InHeaders(record.clone_ref(py)),
        };
        Self { kept, places: self.places }
    }

    fn all(&self) -> All<'_> {
        [
            Name::Id,
            Name::Source,
            Name::Kind,
            Name::WorkflowId,
            Name::Workflow,
            Name::Round,
            Name::Status,
            Name::Deadline,
            Name::Llm,
            Name::Traceparent,
            Name::Tracestate,
            Name::Rounds,
        ]
        .map(|name| self.get(name))
    }
}

impl Place {
    fn new(begin: usize, length: usize) -> Option<Self> {
        let end = begin.checked_add(length)?;
        Some(Self { begin: u16::try_from(begin).ok()?, end: u16::try_from(end).ok()? })
    }
}
