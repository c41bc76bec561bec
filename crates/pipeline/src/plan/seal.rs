//! The seal: which plan exactly was looked at, approved and is run.

use std::collections::BTreeSet;

use flowline_core::{
    Timestamp,
    digest::{Digest, Digester},
    error::{BoxError, ErrorKind, Kinded},
    name::Person,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Denial, Plan, PlanData};

/// The version of the written form of a sealed plan. A reader refuses a higher one.
pub const FORMAT_VERSION: u32 = 1;

/// A plan whose content is fixed by a digest over its graph, inputs, the state in which it found each resource, and the grants.
///
/// The only way to one is [`Plan::seal`], or [`Sealed::open`] with its written form, which is checked again. It does not implement
/// `Deserialize`.
///
/// The digest says that content and digest belong together. That this is the plan that somebody approved, says the [`Approval`] that
/// names the digest; that it may still do what it says, the authority asks again before each effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed<P = Plan> {
    plan: P,
    digest: Digest,
}

/// A plan that can't be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Something in it is not allowed.
    #[error("the plan cannot be sealed, {} of its effects are denied; first: {}", .0.len(), .0.first().map_or("", |d| d.reason.as_str()))]
    Denied(Vec<Denial>),
    /// JSON can't express it.
    #[error("the plan cannot be written as JSON")]
    Json(#[source] BoxError),
}

impl Kinded for SealError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied(_) => ErrorKind::Denied,
            Self::Json(_) => ErrorKind::Invalid,
        }
    }
}

/// A written plan that is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is no sealed plan.
    #[error("the plan cannot be read (line {line}, column {column}): {problem}; make the plan again")]
    Shape {
        /// The line, from 1; 0 if unknown.
        line: usize,
        /// The column, from 1; 0 if unknown.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// It was written by a newer version.
    #[error(
        "the plan has format version {found}, this deployer reads up to {FORMAT_VERSION}; use the newer deployer or make the plan again"
    )]
    Version {
        /// Its version.
        found: u64,
    },
    /// Its content is not what was sealed.
    #[error(
        "the plan was changed after it was sealed: its content has digest {found}, its seal says {sealed}; make the plan again"
    )]
    Tampered {
        /// What the file says.
        sealed: Digest,
        /// What its content has.
        found: Digest,
    },
    /// It is a sealed plan, but another one than was asked for.
    #[error(
        "this is plan {found}, not plan {expected}; apply the plan that was approved, or have this one approved"
    )]
    Other {
        /// Which was asked for.
        expected: Digest,
        /// Which it is.
        found: Digest,
    },
}

impl Kinded for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Shape { .. } => ErrorKind::Invalid,
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Tampered { .. } => ErrorKind::Corrupt,
            Self::Other { .. } => ErrorKind::Conflict,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<D> {
    format_version: u32,
    digest: Digest,
    plan: D,
}

#[derive(Deserialize)]
struct Version {
    format_version: u64,
}

impl Plan {
    /// Seals the plan.
    ///
    /// # Errors
    /// If anything in it is denied.
    pub fn seal(self) -> Result<Sealed<Self>, SealError> {
        if !self.denied().is_empty() {
            return Err(SealError::Denied(self.data.denied));
        }
        let digest = self.digest().map_err(|error| SealError::Json(error.into()))?;
        Ok(Sealed { plan: self, digest })
    }

    pub(super) fn digest(&self) -> Result<Digest, serde_json::Error> {
        Ok(Digester::new("flowline plan 1").json_part(&self.data)?.finish())
    }
}

impl Sealed<Plan> {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What approvals name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads the written form and checks that its content is what was sealed.
    ///
    /// # Errors
    /// If it has another shape or a newer version, was changed, or holds something denied.
    pub fn open(bytes: &[u8]) -> Result<Self, OpenError> {
        let shape = |error: serde_json::Error| OpenError::Shape {
            line: error.line(),
            column: error.column(),
            problem: without_place(&error),
        };
        let version: Version = serde_json::from_slice(bytes).map_err(shape)?;
        if version.format_version > u64::from(FORMAT_VERSION) {
            return Err(OpenError::Version { found: version.format_version });
        }
        Self::verified(serde_json::from_slice(bytes).map_err(shape)?)
    }

    /// As [`open`](Self::open), and it must be the plan with `digest`.
    ///
    /// # Errors
    /// As `open`, and [`OpenError::Other`].
    pub fn open_as(bytes: &[u8], digest: Digest) -> Result<Self, OpenError> {
        let sealed = Self::open(bytes)?;
        if sealed.digest != digest {
            return Err(OpenError::Other { expected: digest, found: sealed.digest });
        }
        Ok(sealed)
    }

    /// As [`open`](Self::open), from a document: the written form as text, or as a value.
    pub(crate) fn open_value(value: &Value) -> Result<Self, OpenError> {
        if let Value::String(text) = value {
            return Self::open(text.as_bytes());
        }
        let written = Written::deserialize(value).map_err(|error| OpenError::Shape {
            line: 0,
            column: 0,
            problem: without_place(&error),
        })?;
        Self::verified(written)
    }

    /// What the plan in a run's document of the store is called, without reading all of it; nothing if it is no plan. It is not checked.
    pub fn name_in(document: &Value) -> Option<String> {
        #[derive(Deserialize)]
        struct Outside {
            plan: Named,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let outside = match document {
            Value::String(text) => serde_json::from_str::<Outside>(text),
            value => Outside::deserialize(value),
        };
        outside.ok().map(|outside| outside.plan.name)
    }

    fn verified(written: Written<PlanData>) -> Result<Self, OpenError> {
        let plan = Plan { data: written.plan };
        let shape = |problem: String| OpenError::Shape { line: 0, column: 0, problem };
        let digest = plan.digest().map_err(|error| shape(error.to_string()))?;
        if digest != written.digest {
            return Err(OpenError::Tampered { sealed: written.digest, found: digest });
        }
        if let Some(denial) = plan.denied().first() {
            return Err(shape(format!("it holds a denied effect: {}", denial.reason)));
        }
        Ok(Self { plan, digest })
    }

    /// The written form: one line of JSON and a newline, the same bytes each time.
    ///
    /// # Errors
    /// If JSON can't express it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SealError> {
        let mut bytes = serde_json::to_vec(&self.written()).map_err(|error| SealError::Json(error.into()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The written form as a document's text.
    pub(crate) fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.written())
    }

    pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self.written())
    }

    fn written(&self) -> Written<&PlanData> {
        Written { format_version: FORMAT_VERSION, digest: self.digest, plan: &self.plan.data }
    }
}

/// The message without serde's own "at line … column …".
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A person agrees with one exact plan, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The plan.
    pub plan: Digest,
    /// Who.
    pub by: Person,
    /// When.
    pub at: Timestamp,
    /// Until when it counts.
    pub until: Timestamp,
}

/// An approval that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// It is for another plan.
    #[error("`{by}` approved plan {approved}, not this one ({plan}); ask for an approval of this one")]
    OtherPlan {
        /// Who.
        by: Person,
        /// For which plan.
        approved: Digest,
        /// Which plan this is.
        plan: Digest,
    },
    /// It ran out.
    #[error("the approval of `{by}` ran out at {until}; ask again")]
    Expired {
        /// Who.
        by: Person,
        /// When.
        until: Timestamp,
    },
    /// The author approved.
    #[error("`{by}` made the plan and cannot approve it; ask somebody else")]
    Author {
        /// Who.
        by: Person,
    },
    /// The gate asks others.
    #[error("`{by}` is not asked to approve; ask {}", people(.asked))]
    NotAsked {
        /// Who approved.
        by: Person,
        /// Who may.
        asked: BTreeSet<Person>,
    },
    /// The gate was open for approvals only for a time.
    #[error("`{by}` approved too late: the gate waited until {until}; make the plan again")]
    Late {
        /// Who.
        by: Person,
        /// Until when it waited.
        until: Timestamp,
    },
}

fn people(people: &BTreeSet<Person>) -> String {
    people.iter().map(|person| format!("`{person}`")).collect::<Vec<_>>().join(" or ")
}

impl Kinded for ApprovalError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Denied
    }
}

impl Approval {
    /// Whether it counts for `sealed` at `now`.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(
        &self,
        sealed: &Sealed<Plan>,
        now: Timestamp,
        author_may: bool,
    ) -> Result<(), ApprovalError> {
        if self.plan != sealed.digest() {
            let (by, approved) = (self.by.clone(), self.plan);
            return Err(ApprovalError::OtherPlan { by, approved, plan: sealed.digest() });
        }
        if now >= self.until {
            return Err(ApprovalError::Expired { by: self.by.clone(), until: self.until });
        }
        if !author_may && sealed.plan().author() == Some(&self.by) {
            return Err(ApprovalError::Author { by: self.by.clone() });
        }
        Ok(())
    }
}
