//! GitHub's `pull_request` webhook event, with the fields as GitHub documents them.

use flowline_core::{
    change::{Change, ChangeSource, ChangeState, CommitId, Risk},
    id::ChangeId,
    name::{AppName, Person},
    secret::Secret,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{PayloadError, Told};

/// The actions that move a change; all others tell nothing.
const MOVES: [&str; 5] = ["opened", "reopened", "synchronize", "edited", "closed"];

/// What a `pull_request` event says about a change of `app`.
///
/// The change is called after the pull request's number (`pr-123`), and its author shepherds it.
///
/// ```
/// use flowline_envs::webhook::{Told, github};
/// let payload = br#"{ "action": "labeled", "number": 7 }"#;
/// let told = github::pull_request(payload, &"storefront".parse()?)?;
/// assert_eq!(told, Told::Nothing { action: "labeled".to_owned() });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PayloadError`] names the first field that is missing, has another type, or can't be used.
pub fn pull_request(payload: &[u8], app: &AppName) -> Result<Told, PayloadError> {
    let payload: Value = serde_json::from_slice(payload).map_err(|error| PayloadError::Json {
        line: error.line(),
        column: error.column(),
        source: error.into(),
    })?;
    let field = |path| Field::find(&payload, path);
    let action = field("action")?.text()?;
    if !MOVES.contains(&action) {
        return Ok(Told::Nothing { action: action.to_owned() });
    }
    let number = field("number")?.number()?;
    let commit = |path| field(path)?.parsed(|text| CommitId::new(text).map_err(|error| error.to_string()));
    let merged = field("pull_request.merged")?.boolean()?;
    let state = match (field("pull_request.state")?.text()?, merged) {
        ("open", _) => ChangeState::Open,
        ("closed", true) => ChangeState::Merged,
        ("closed", false) => ChangeState::Closed,
        (other, _) => {
            let problem = format!("`{}` is neither `open` nor `closed`", other.escape_debug());
            return Err(PayloadError::Value { path: "pull_request.state".to_owned(), problem });
        }
    };
    let id = ChangeId::new(format!("pr-{number}"));
    let id =
        id.map_err(|error| PayloadError::Value { path: "number".to_owned(), problem: error.to_string() })?;
    let change = Change {
        id,
        app: app.clone(),
        number,
        title: field("pull_request.title")?.text()?.to_owned(),
        shepherd: field("pull_request.user.login")?
            .parsed(|text| Person::new(text).map_err(|error| error.to_string()))?,
        risk: Risk::default(),
        source: ChangeSource {
            branch: field("pull_request.head.ref")?.text()?.to_owned(),
            head: commit("pull_request.head.sha")?,
            base_branch: field("pull_request.base.ref")?.text()?.to_owned(),
            base: commit("pull_request.base.sha")?,
            merged: if merged { Some(commit("pull_request.merge_commit_sha")?) } else { None },
        },
        state,
    };
    Ok(Told::Change(Box::new(change)))
}

/// Checks the header `X-Hub-Signature-256` (`sha256=` and 64 hexadecimal digits): HMAC-SHA256 (RFC 2104) of the body under the webhook's
/// secret. Compares in constant time. Check before anything is read from the payload.
///
/// # Errors
/// [`PayloadError::Signature`] if it does not fit.
pub fn check_signature(header: Option<&str>, body: &[u8], secret: &Secret) -> Result<(), PayloadError> {
    let refuse = |problem| Err(PayloadError::Signature { problem });
    let Some(header) = header else {
        return refuse("the header `X-Hub-Signature-256` is missing; set a secret for the webhook");
    };
    let Some(given) = header.strip_prefix("sha256=").and_then(unhex) else {
        return refuse("it is not `sha256=` and 64 hexadecimal digits");
    };
    let wanted = hmac(secret.expose().as_bytes(), body);
    let difference =
        given.iter().zip(wanted).fold(0, |difference, (given, wanted)| difference | (given ^ wanted));
    if difference == 0 { Ok(()) } else { refuse("another secret, or the body was changed on its way") }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A field of the payload and its path, for messages.
struct Field<'a> {
    path: &'a str,
    value: &'a Value,
}

impl<'a> Field<'a> {
    fn find(payload: &'a Value, path: &'a str) -> Result<Self, PayloadError> {
        let mut value = payload;
        let mut end = 0;
        for name in path.split('.') {
            end += name.len();
            // A part in between that has another type is what is wrong, not the field below it.
            let Value::Object(object) = value else {
                let at = path[..end - name.len()].trim_end_matches('.');
                let path = if at.is_empty() { "(the whole)" } else { at }.to_owned();
                return Err(PayloadError::Type { path, found: type_of(value), expected: "an object" });
            };
            value = object.get(name).ok_or_else(|| PayloadError::Missing {
                path: path[..end].to_owned(),
                forge: "GitHub",
                event: "pull_request",
            })?;
            end += 1;
        }
        Ok(Self { path, value })
    }

    fn text(&self) -> Result<&'a str, PayloadError> {
        self.value.as_str().ok_or_else(|| self.not("a text"))
    }

    fn number(&self) -> Result<u64, PayloadError> {
        self.value.as_u64().ok_or_else(|| self.not("a whole number"))
    }

    fn boolean(&self) -> Result<bool, PayloadError> {
        self.value.as_bool().ok_or_else(|| self.not("true or false"))
    }

    fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, PayloadError> {
        parse(self.text()?).map_err(|problem| PayloadError::Value { path: self.path.to_owned(), problem })
    }

    fn not(&self, expected: &'static str) -> PayloadError {
        PayloadError::Type { path: self.path.to_owned(), found: type_of(self.value), expected }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload() -> Value {
        json!({
            "action": "opened",
            "number": 123,
            "pull_request": {
                "number": 123, "state": "open", "title": "Faster checkout", "merged": false, "merge_commit_sha": null,
                "user": { "login": "ada" },
                "head": { "ref": "../../etc", "sha": "a".repeat(40) },
                "base": { "ref": "main", "sha": "b".repeat(40) }
            }
        })
    }

    fn read(payload: &Value) -> Result<Told, PayloadError> {
        pull_request(payload.to_string().as_bytes(), &"storefront".parse().unwrap())
    }

    fn change(payload: &Value) -> Change {
        match read(payload).unwrap() {
            Told::Change(change) => *change,
            Told::Nothing { action } => panic!("{action}"),
        }
    }

    #[test]
    fn an_opened_pull_request_is_a_change_with_its_author_as_shepherd() {
        let change = change(&payload());
        assert_eq!(
            (change.id.as_str(), change.shepherd.as_str(), change.state),
            ("pr-123", "ada", ChangeState::Open)
        );
        assert_eq!(change.source.branch, "../../etc", "a branch's name is only ever data");
    }

    #[test]
    fn merged_and_closed_are_told_apart() {
        let mut closed = payload();
        closed["action"] = json!("closed");
        closed["pull_request"]["state"] = json!("closed");
        assert_eq!(change(&closed).state, ChangeState::Closed);
        closed["pull_request"]["merged"] = json!(true);
        closed["pull_request"]["merge_commit_sha"] = json!("c".repeat(40));
        let merged = change(&closed);
        assert_eq!(merged.state, ChangeState::Merged);
        assert_eq!(merged.source.merged.unwrap().as_str(), "c".repeat(40));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let spoiled = |spoil: &dyn Fn(&mut Value)| {
            let mut payload = payload();
            spoil(&mut payload);
            read(&payload).unwrap_err().to_string()
        };
        let mut said = vec![
            spoiled(&|p| drop(p.as_object_mut().unwrap().remove("action"))),
            spoiled(&|p| p["number"] = json!("123")),
            spoiled(&|p| p["number"] = json!(-1)),
            spoiled(&|p| drop(p["pull_request"]["head"].as_object_mut().unwrap().remove("sha"))),
            spoiled(&|p| p["pull_request"]["head"] = json!([])),
            spoiled(&|p| p["pull_request"] = json!(null)),
            spoiled(&|p| p["pull_request"]["head"]["sha"] = json!("--upload-pack=x")),
            spoiled(&|p| p["pull_request"]["user"]["login"] = json!("a b")),
            spoiled(&|p| p["pull_request"]["state"] = json!("half")),
            spoiled(&|p| p["pull_request"]["merged"] = json!("no")),
        ];
        for text in ["[]", "{\n oops"] {
            said.push(pull_request(text.as_bytes(), &"storefront".parse().unwrap()).unwrap_err().to_string());
        }
        insta::assert_snapshot!(said.join("\n"), @r"
        the payload has no `action`; is it a GitHub `pull_request` event?
        `number` in the payload is a text, where a whole number was expected
        `number` in the payload is a number, where a whole number was expected
        the payload has no `pull_request.head.sha`; is it a GitHub `pull_request` event?
        `pull_request.head` in the payload is a list, where an object was expected
        `pull_request` in the payload is null, where an object was expected
        `pull_request.head.sha` in the payload cannot be used: `--upload-pack=x` is not a commit's id: it needs 40 or 64 lower-case hexadecimal digits
        `pull_request.user.login` in the payload cannot be used: `a b` is not a person's handle: ' ' at character 2 is not allowed; use printable characters without white space
        `pull_request.state` in the payload cannot be used: `half` is neither `open` nor `closed`
        `pull_request.merged` in the payload is a text, where true or false was expected
        `(the whole)` in the payload is a list, where an object was expected
        the payload is not JSON: line 2, column 2
        ");
    }

    #[test]
    fn a_signature_fits_its_body_and_secret_only() {
        // The example of GitHub's documentation on validating deliveries.
        let secret = Secret::new("It's a Secret to Everybody");
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(check_signature(Some(good), b"Hello, World!", &secret).is_ok());
        for (header, body) in
            [(Some(good), "Hello, World?"), (Some("sha256=00"), "Hello, World!"), (None, "Hello, World!")]
        {
            assert!(check_signature(header, body.as_bytes(), &secret).is_err());
        }
        assert!(check_signature(Some(good), b"Hello, World!", &Secret::new("another")).is_err());
        let long = Secret::new("k".repeat(100));
        assert!(check_signature(Some(good), b"Hello, World!", &long).is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            drop(pull_request(&bytes, &"storefront".parse().unwrap()));
        }
    }
}
