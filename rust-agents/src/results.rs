//! The writing of a result's JSON exists so that a result costs one call: what has been JSON before is copied,
//! and only the few texts that each result has of its own are written anew.

/// What a result says. What is given in bytes is JSON already.
#[derive(Debug)]
pub(crate) struct Value<'a> {
    /// An object with what all results of an agent begin with, without its last brace.
    pub(crate) start: &'a [u8],
    pub(crate) status: &'a str,
    pub(crate) output: &'a [u8],
    pub(crate) verdict: Option<&'a str>,
    pub(crate) error: Option<&'a [u8]>,
    pub(crate) artifacts: &'a [u8],
    pub(crate) usage: &'a [u8],
    pub(crate) attempts: u64,
    pub(crate) started_at: Option<&'a str>,
    pub(crate) finished_at: &'a str,
    pub(crate) run: &'a str,
    pub(crate) root: Root<'a>,
    pub(crate) followers: &'a [&'a str],
    /// Left out if it is none: next to no result goes back.
    pub(crate) back: Option<&'a [u8]>,
}

/// The task a workflow began with.
#[derive(Debug)]
pub(crate) struct Root<'a> {
    pub(crate) agent: &'a str,
    pub(crate) id: &'a str,
    pub(crate) input: Option<&'a [u8]>,
    pub(crate) input_omitted: bool,
    pub(crate) repository: Option<&'a [u8]>,
}

/// What the names of all fields take, and texts that are short in every result.
const USUAL_BYTES: usize = 512;
const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

impl Value<'_> {
    /// Writes it as JSON, in the order of its fields.
    pub(crate) fn write(&self) -> Vec<u8> {
        let Self { root, .. } = self;
        let mut json = Json(Vec::with_capacity(self.usual_size()));
        json.raw(self.start);
        json.text(b",\"status\":", Some(self.status));
        json.part(b",\"output\":", Some(self.output));
        json.text(b",\"verdict\":", self.verdict);
        json.part(b",\"error\":", self.error);
        json.part(b",\"artifacts\":", Some(self.artifacts));
        json.part(b",\"usage\":", Some(self.usage));
        json.part(b",\"attempts\":", Some(self.attempts.to_string().as_bytes()));
        json.text(b",\"started_at\":", self.started_at);
        json.text(b",\"finished_at\":", Some(self.finished_at));
        json.text(b",\"run\":", Some(self.run));
        json.text(b",\"root\":{\"agent\":", Some(root.agent));
        json.text(b",\"id\":", Some(root.id));
        json.part(b",\"input\":", root.input);
        json.part(
            b",\"input_omitted\":",
            Some(if root.input_omitted { b"true" } else { b"false" }),
        );
        json.part(b",\"repository\":", root.repository);
        json.texts(b"},\"followers\":", self.followers);
        if self.back.is_some() {
            json.part(b",\"back\":", self.back);
        }
        json.raw(b"}");
        json.0
    }

    /// How many bytes it takes if it says nothing unusual.
    fn usual_size(&self) -> usize {
        let parts = [Some(self.start), Some(self.output), self.error, self.root.input, self.back];
        let lengths = parts.into_iter().flatten().map(<[u8]>::len);
        USUAL_BYTES + lengths.sum::<usize>() + self.artifacts.len() + self.usage.len()
    }
}

/// Tells whether the word `null` is anywhere in some JSON.
pub(crate) fn says_null(json: &[u8]) -> bool {
    let after = |bytes: usize| json.get(bytes..).unwrap_or_default();
    let fours = json.iter().zip(after(1)).zip(after(2)).zip(after(3));
    let differing = fours.map(|(((first, second), third), fourth)| {
        (first ^ b'n') | (second ^ b'u') | (third ^ b'l') | (fourth ^ b'l')
    });
    // Without an end at the first, many are compared at a time: nearly no output has any.
    differing.fold(u8::MAX, u8::min) == 0
}

/// JSON that is being written, as orjson writes it.
struct Json(Vec<u8>);

impl Json {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes a field that is JSON already; None is null.
    fn part(&mut self, name: &[u8], part: Option<&[u8]>) {
        self.raw(name);
        self.raw(part.unwrap_or(b"null"));
    }

    /// Writes a field that is a text; None is null.
    fn text(&mut self, name: &[u8], text: Option<&str>) {
        self.raw(name);
        match text {
            Some(text) => self.quoted(text),
            None => self.raw(b"null"),
        }
    }

    /// Writes a field that is a list of texts.
    fn texts(&mut self, name: &[u8], texts: &[&str]) {
        self.raw(name);
        self.raw(b"[");
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                self.raw(b",");
            }
            self.quoted(text);
        }
        self.raw(b"]");
    }

    fn quoted(&mut self, text: &str) {
        self.raw(b"\"");
        // Looking at all of it takes less than looking for the first: nearly no text has one.
        if text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
            self.with_escapes(text.as_bytes());
        } else {
            self.raw(text.as_bytes());
        }
        self.raw(b"\"");
    }

    fn with_escapes(&mut self, text: &[u8]) {
        for byte in text {
            if is_escaped(*byte) {
                self.escaped(*byte);
            } else {
                self.0.push(*byte);
            }
        }
    }

    fn escaped(&mut self, byte: u8) {
        match byte {
            b'"' => self.raw(b"\\\""),
            b'\\' => self.raw(b"\\\\"),
            0x08 => self.raw(b"\\b"),
            b'\t' => self.raw(b"\\t"),
            b'\n' => self.raw(b"\\n"),
            0x0c => self.raw(b"\\f"),
            b'\r' => self.raw(b"\\r"),
            _ => {
                self.raw(b"\\u00");
                for digit in [byte >> 4, byte & 0x0f] {
                    self.0.extend(HEXADECIMAL.get(usize::from(digit)));
                }
            }
        }
    }
}

const fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use super::{Root, Value, says_null};

    const START: &[u8] = br#"{"agent":"a","agent_version":"1""#;

    fn usual() -> Value<'static> {
        Value {
            start: START,
            status: "completed",
            output: br#"{"n":1}"#,
            verdict: None,
            error: None,
            artifacts: b"[]",
            usage: b"{}",
            attempts: 1,
            started_at: None,
            finished_at: "then",
            run: "r",
            root: Root { agent: "a", id: "i", input: None, input_omitted: true, repository: None },
            followers: &[],
            back: None,
        }
    }

    fn written(value: &Value<'_>) -> String {
        String::from_utf8_lossy(&value.write()).into_owned()
    }

    #[test]
    fn a_usual_result_leaves_out_what_next_to_none_has() {
        assert_eq!(
            written(&usual()),
            concat!(
                r#"{"agent":"a","agent_version":"1","status":"completed","output":{"n":1},"#,
                r#""verdict":null,"error":null,"artifacts":[],"usage":{},"attempts":1,"#,
                r#""started_at":null,"finished_at":"then","run":"r","root":{"agent":"a","id":"i","#,
                r#""input":null,"input_omitted":true,"repository":null},"followers":[]}"#,
            )
        );
    }

    #[test]
    fn what_is_json_already_is_copied() {
        let root = Root {
            input: Some(b"[1]"),
            input_omitted: false,
            repository: Some(b"{\"c\":1}"),
            ..usual().root
        };
        let value = Value {
            error: Some(b"{\"type\":1}"),
            artifacts: b"[{}]",
            usage: b"{\"calls\":2}",
            attempts: u64::MAX,
            started_at: Some("before"),
            root,
            followers: &["b", "c"],
            back: Some(b"{\"to\":\"b\"}"),
            ..usual()
        };
        assert_eq!(
            written(&value),
            concat!(
                r#"{"agent":"a","agent_version":"1","status":"completed","output":{"n":1},"#,
                r#""verdict":null,"error":{"type":1},"artifacts":[{}],"usage":{"calls":2},"#,
                r#""attempts":18446744073709551615,"started_at":"before","finished_at":"then","#,
                r#""run":"r","root":{"agent":"a","id":"i","input":[1],"input_omitted":false,"#,
                r#""repository":{"c":1}},"followers":["b","c"],"back":{"to":"b"}}"#,
            )
        );
    }

    #[test]
    fn texts_are_escaped_where_json_wants_it_and_nowhere_else() {
        for (text, json) in [
            ("", r#""verdict":"","#),
            ("\"", r#""verdict":"\"","#),
            ("a\\b\\", r#""verdict":"a\\b\\","#),
            ("\u{8}\t\n\u{c}\r", r#""verdict":"\b\t\n\f\r","#),
            ("\0\u{b}\u{1f}", r#""verdict":"\u0000\u000b\u001f","#),
            (" /\u{7f}\u{2028}é", concat!(r#""verdict":" /"#, "\u{7f}\u{2028}é", r#"","#)),
            ("é\"é", r#""verdict":"é\"é","#),
        ] {
            let value = Value { verdict: Some(text), ..usual() };
            assert!(written(&value).contains(json), "{text:?}: {}", written(&value));
        }
    }

    #[test]
    fn null_is_found_wherever_it_is() {
        for json in ["null", "[null]", "[1,null", "nunull", "{\"null\":1}"] {
            assert!(says_null(json.as_bytes()), "{json}");
        }
        for json in ["", "nul", "ull", "nunul", "n,u,l,l", "NULL"] {
            assert!(!says_null(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn a_result_of_many_escapes_outgrows_the_room_made_for_it() {
        let (text, escaped) = ("\0".repeat(5_000), "\\u0000".repeat(5_000));
        let value = Value { verdict: Some(&text), ..usual() };
        assert!(written(&value).contains(&escaped));
    }
}
