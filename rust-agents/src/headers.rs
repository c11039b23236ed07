//! The reading of headers exists so that a usual event costs one call: whatever is odd about one is left
//! to Python, which can say what it is.

/// The attributes of an event, in the order in which Python's `Envelope` has them.
const READ: [&str; 14] = [
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
    "ce_budget",
];
/// The attributes of an event that is written, in the order in which Python gives them.
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
/// The headers that are the same in most events of one topic.
const REPEATED: [&str; 8] = [
    "ce_specversion",
    "ce_type",
    "ce_dataschema",
    "content-type",
    "ce_source",
    "ce_workflow",
    "ce_status",
    "ce_llm",
];
const TRACE: std::ops::Range<usize> = 10..12;
/// Each costs as much as three bytes more; Python's limit is a little higher.
const MAX_READ_BYTES: usize = 4_000;
const MAX_HEADERS: usize = 40;

/// A header's name and value.
pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);
/// What the headers of a usual event say.
pub(crate) type Attributes<'a> = [Option<&'a str>; READ.len()];

/// Reads the headers of a whole event in which nothing is odd; None for all others.
pub(crate) fn read<'a>(headers: &[Header<'a>]) -> Option<Attributes<'a>> {
    if headers.len() > MAX_HEADERS {
        return None;
    }
    let mut attributes: Attributes<'a> = [None; READ.len()];
    let (mut version, mut content) = (None, None);
    for (index, (name, value)) in headers.iter().enumerate() {
        let value = (*value)?;
        // A name that is there twice is odd, whichever it is.
        if headers.iter().take(index).any(|(before, _)| before == name) {
            return None;
        }
        match *name {
            "ce_specversion" => version = Some(value),
            "content-type" => content = Some(value),
            _ => {
                let at = READ.iter().position(|known| known == name);
                if let Some(attribute) = at.and_then(|at| attributes.get_mut(at)) {
                    *attribute = Some(std::str::from_utf8(value).ok()?);
                }
            }
        }
    }
    let usual = version == Some(b"1.0")
        && content.is_none_or(|it| it == b"application/json")
        && attributes.iter().take(3).all(|it| it.is_some_and(|text| !text.is_empty()));
    let bytes = attributes
        .iter()
        .enumerate()
        .filter(|(at, _)| !TRACE.contains(at))
        .filter_map(|(_, it)| it.map(|text| text.len() + 3))
        .sum::<usize>();
    (usual && bytes <= MAX_READ_BYTES).then_some(attributes)
}

/// Tells whether a header is one that events have: of other names there may be any number.
pub(crate) fn is_known(name: &str) -> bool {
    WRITTEN.contains(&name) || REPEATED.contains(&name)
}

/// Tells whether a header is the same in most events of one topic.
pub(crate) fn is_repeated(name: &str) -> bool {
    REPEATED.contains(&name)
}
