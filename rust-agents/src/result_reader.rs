//! The reading of a result exists so that a follower takes out of it what it was given, and passes on the rest
//! as it is: the input of the workflow goes along with every result, and next to nobody looks at it.

use crate::json::Json;

/// What a completed result hands on, in which nothing is unusual. What is in bytes here is JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read<'a> {
    pub(crate) output: &'a str,
    pub(crate) root_agent: &'a str,
    pub(crate) root_id: &'a str,
    pub(crate) root_input: &'a str,
    pub(crate) root_input_omitted: bool,
}

/// Reads a result as `results` writes it; none if it is another, or says anything that has to be looked at:
/// an error, artifacts, a repository, a way back.
pub(crate) fn read(value: &[u8]) -> Option<Read<'_>> {
    let mut json = Json::new(value)?;
    json.expect("{\"agent\":")?;
    json.plain_text()?;
    json.expect(",\"agent_version\":")?;
    json.plain_text()?;
    json.expect(",\"status\":\"completed\",\"output\":")?;
    let output = json.value()?;
    json.expect(",\"verdict\":")?;
    if !json.take("null") {
        json.plain_text()?;
    }
    json.expect(",\"error\":null,\"artifacts\":[],\"usage\":{\"calls\":")?;
    json.count()?;
    json.expect(",\"input_tokens\":")?;
    json.count()?;
    json.expect(",\"output_tokens\":")?;
    json.count()?;
    json.expect("},\"attempts\":")?;
    json.count()?;
    json.expect(",\"started_at\":")?;
    json.plain_text()?;
    json.expect(",\"finished_at\":")?;
    json.plain_text()?;
    json.expect(",\"run\":")?;
    json.plain_text()?;
    json.expect(",\"root\":{\"agent\":")?;
    let root_agent = json.plain_text()?;
    json.expect(",\"id\":")?;
    let root_id = json.plain_text()?;
    json.expect(",\"input\":")?;
    let root_input = json.value()?;
    json.expect(",\"input_omitted\":")?;
    let root_input_omitted = json.take("true");
    if !root_input_omitted {
        json.expect("false")?;
    }
    json.expect(",\"repository\":null},\"followers\":[")?;
    if !json.take("]") {
        json.name()?;
        while json.take(",") {
            json.name()?;
        }
        json.expect("]")?;
    }
    json.expect("}")?;
    json.end()?;
    Some(Read { output, root_agent, root_id, root_input, root_input_omitted })
}

impl<'a> Json<'a> {
    fn name(&mut self) -> Option<&'a str> {
        self.plain_text().filter(|it| !it.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Root, Value};

    fn a_value() -> Value<'static> {
        Value {
            start: b"{\"agent\":\"a\",\"agent_version\":\"1\"",
            status: "completed",
            output: b"[1,{\"b\":null}]",
            verdict: None,
            error: None,
            artifacts: b"[]",
            usage: b"{\"calls\":0,\"input_tokens\":0,\"output_tokens\":0}",
            attempts: 1,
            started_at: Some("then"),
            finished_at: "now",
            run: "r",
            root: Root {
                agent: "first",
                id: "7",
                input: Some(b"\"in\""),
                input_omitted: false,
                repository: None,
            },
            followers: &["b", "c"],
            back: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let expected = Read {
            output: "[1,{\"b\":null}]",
            root_agent: "first",
            root_id: "7",
            root_input: "\"in\"",
            root_input_omitted: false,
        };
        assert_eq!(read(&a_value().write()), Some(expected));
        for value in [
            Value { verdict: Some("good"), ..a_value() },
            Value { followers: &[], ..a_value() },
            Value {
                root: Root { input: None, input_omitted: true, ..a_value().root },
                ..a_value()
            },
        ] {
            assert!(read(&value.write()).is_some(), "{value:?}");
        }
    }

    #[test]
    fn what_has_to_be_looked_at_is_left_to_others() {
        for value in [
            Value { status: "failed", ..a_value() },
            Value { output: b"NaN", ..a_value() },
            Value { verdict: Some("\""), ..a_value() },
            Value { error: Some(b"{}"), ..a_value() },
            Value { artifacts: b"[1]", ..a_value() },
            Value { usage: b"{}", ..a_value() },
            Value { started_at: None, ..a_value() },
            Value { followers: &[""], ..a_value() },
            Value { back: Some(b"{}"), ..a_value() },
            Value { root: Root { id: "\n", ..a_value().root }, ..a_value() },
            Value { root: Root { repository: Some(b"{}"), ..a_value().root }, ..a_value() },
        ] {
            assert_eq!(read(&value.write()), None, "{value:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_none() {
        let whole = a_value().write();
        for cut_off in 1..=whole.len() {
            assert_eq!(whole.get(..whole.len() - cut_off).and_then(read), None);
        }
        assert_eq!(read(&[&whole[..], b" "].concat()), None);
    }
}
