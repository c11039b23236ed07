//! The W3C trace context of an event exists in Rust so that a result's costs no parsing in Python.

/// Version, trace, parent and flags, as version 00 writes them.
const USUAL: usize = "00-".len() + 32 + "-".len() + 16 + "-01".len();

/// Tells whether a `traceparent` is a valid one in which nothing is odd; Python reads all others.
pub(crate) fn is_usual(parent: &str) -> bool {
    let part = |from: usize, to: usize| parent.get(from..to).unwrap_or_default();
    let hexadecimal = |text: &str| text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let (trace, span) = (part(3, 35), part(36, 52));
    parent.len() == USUAL
        && part(0, 3) == "00-"
        && part(35, 36) == "-"
        && part(52, 53) == "-"
        && [trace, span, part(53, 55)].into_iter().all(hexadecimal)
        && [trace, span].into_iter().all(|it| it.bytes().any(|digit| digit != b'0'))
}

/// Continues a trace, as it was read, with the run as its span, or begins one.
pub(crate) fn next(current: Option<&str>, run: &str) -> String {
    let span = run.get(..16).unwrap_or(run);
    let mut parts = current.unwrap_or_default().split('-').skip(1);
    let (trace, flags) = (parts.next(), parts.nth(1));
    match (trace, flags) {
        (Some(trace), Some(flags)) => ["00-", trace, "-", span, "-", flags].concat(),
        _ => ["00-", run.get(16..48).unwrap_or_default(), "-", span, "-01"].concat(),
    }
}
