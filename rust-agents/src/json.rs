//! Reading JSON as far as it is known what comes exists so that the rest can be passed on unread: a value is
//! checked, and what it is made of is looked at by nobody who does not ask.
//!
//! Only JSON without whitespace is read, which is how it is written here. Whoever gets a `None` reads it in
//! another way, and finds out what is wrong with it, if anything is.

/// How deep lists and objects may lie in each other; Python's readers take at least as much.
const MAX_DEPTH: u32 = 100;
/// Digits of a number that every reader can hold; more are somebody else's to judge.
const MAX_DIGITS: usize = 18;

/// JSON that is being read.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Json<'a> {
    /// Begins to read JSON; none if it is no text.
    pub(crate) fn new(json: &'a [u8]) -> Option<Self> {
        Some(Self { text: str::from_utf8(json).ok()?, at: 0 })
    }

    /// Reads what must be there.
    pub(crate) fn expect(&mut self, literal: &str) -> Option<()> {
        self.take(literal).then_some(())
    }

    /// Reads what may be there, and tells whether it was.
    pub(crate) fn take(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal.as_bytes());
        if found {
            self.at += literal.len();
        }
        found
    }

    /// Reads a text in which nothing is escaped.
    pub(crate) fn plain_text(&mut self) -> Option<&'a str> {
        let quoted = self.part(Self::string)?;
        (!quoted.contains('\\')).then(|| quoted.get(1..quoted.len() - 1)).flatten()
    }

    /// Reads a number that is no fraction, and not negative.
    pub(crate) fn count(&mut self) -> Option<&'a str> {
        let digits = self.part(Self::number)?;
        digits.bytes().all(|it| it.is_ascii_digit()).then_some(digits)
    }

    /// Reads any value.
    pub(crate) fn value(&mut self) -> Option<&'a str> {
        self.part(|json| json.any(MAX_DEPTH))
    }

    /// Reads the end.
    pub(crate) fn end(&self) -> Option<()> {
        self.rest().is_empty().then_some(())
    }

    fn part(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a str> {
        let begin = self.at;
        read(self)?;
        self.text.get(begin..self.at)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.rest().first()?;
        self.at += 1;
        Some(byte)
    }

    fn any(&mut self, depth: u32) -> Option<()> {
        match self.rest().first()? {
            b'"' => self.string(),
            b'{' => self.members(depth.checked_sub(1)?),
            b'[' => self.items(depth.checked_sub(1)?),
            b't' => self.expect("true"),
            b'f' => self.expect("false"),
            b'n' => self.expect("null"),
            _ => self.number(),
        }
    }

    fn items(&mut self, depth: u32) -> Option<()> {
        self.expect("[")?;
        if self.take("]") {
            return Some(());
        }
        loop {
            self.any(depth)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn members(&mut self, depth: u32) -> Option<()> {
        self.expect("{")?;
        if self.take("}") {
            return Some(());
        }
        loop {
            self.string()?;
            self.expect(":")?;
            self.any(depth)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.expect("\"")?;
        loop {
            let special = self.rest().iter().position(|it| matches!(it, b'"' | b'\\' | ..0x20))?;
            self.at += special;
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escaped()?,
                _ => return None,
            }
        }
    }

    /// Reads what is escaped, but for what is no character of the basic plane: such are seldom escaped.
    fn escaped(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                let is_hexadecimal = digits.bytes().all(|it| it.is_ascii_hexdigit());
                let code =
                    is_hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten()?;
                self.at += 4;
                char::from_u32(code).map(|_| ())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        self.take("-");
        if !self.take("0") {
            self.digits()?;
        }
        if self.take(".") {
            self.digits()?;
        }
        // With an exponent it may be larger than any number; such are seldom.
        (!matches!(self.rest().first(), Some(b'e' | b'E' | b'0'..=b'9'))).then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        let digits = self.rest().iter().take_while(|it| it.is_ascii_digit()).count();
        self.at += digits;
        (1..=MAX_DIGITS).contains(&digits).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Option<&str> {
        let mut reader = Json::new(json.as_bytes())?;
        let found = reader.value()?;
        reader.end()?;
        Some(found)
    }

    #[test]
    fn what_is_json_is_read_whole() {
        for json in [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "7",
            "-12.50",
            "\"\"",
            "\"\u{1F600}\\n\\u0041\\\\\"",
            "[]",
            "[1,[],{}]",
            "{}",
            "{\"a\":1,\"b\":[{\"c\":null}]}",
            "0.30000000000000004",
        ] {
            assert_eq!(value(json), Some(json));
        }
    }

    #[test]
    fn what_is_not_or_may_be_another_thing_to_others_is_not() {
        for json in [
            "",
            "nul",
            "NaN",
            "Infinity",
            "-",
            "01",
            "1.",
            ".5",
            "1e3",
            "1E400",
            "1234567890123456789",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\uzzzz\"",
            "\"\\u+123\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "\"\n\"",
            "[",
            "[1",
            "[1,]",
            "[,1]",
            "[1 ,2]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1",
            "1 ",
            " 1",
            "1,2",
            "tru",
            "'a'",
        ] {
            assert_eq!(value(json), None, "{json}");
        }
        assert!(Json::new(b"\"\xff\"").is_none());
    }

    #[test]
    fn what_lies_too_deep_is_left_to_others() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(value(&nested(100)).is_some());
        assert!(value(&nested(101)).is_none());
        assert!(value(&nested(1_000_000)).is_none());
    }

    #[test]
    fn a_text_is_plain_if_nothing_is_escaped() {
        let plain =
            |json: &'static str| Json::new(json.as_bytes()).and_then(|mut it| it.plain_text());
        assert_eq!(plain("\"\""), Some(""));
        assert_eq!(plain("\"a\u{e9}\"]"), Some("a\u{e9}"));
        assert_eq!(plain("\"a\\n\""), None);
        assert_eq!(plain("1"), None);
    }

    #[test]
    fn a_count_is_neither_negative_nor_a_fraction() {
        let count = |json: &'static str| Json::new(json.as_bytes()).and_then(|mut it| it.count());
        assert_eq!(count("12,"), Some("12"));
        assert_eq!(count("-1"), None);
        assert_eq!(count("1.5"), None);
        assert_eq!(count("\"1\""), None);
    }
}
