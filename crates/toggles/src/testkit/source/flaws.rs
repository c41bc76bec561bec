//! Each sentence of the suite can fail; and our own sources keep all of them.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use flowline_core::{
    Timestamp,
    clock::{Clock, ManualClock},
    digest::Digest,
    id::ScopeId,
    store::{MemoryStore, Store},
};

use super::*;
use crate::{
    flags::{Author, Flags, Reading},
    format::flowline::{Definition, FlagKey},
    source::{FileSource, StoreSource},
};

/// What is wrong with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    CutsText,
    NeverSame,
    OneTag,
    BelievesAnyTag,
    HandsOutHalf,
    KeepsWhatIsGone,
    RefusesWhatIsGone,
    HasNoLimit,
    StaysBusy,
    IsDeaf,
    MissesWhatWasBefore,
    Wanders,
}

const DOCUMENTS: [&str; 2] = [r#"{"flags": {}}"#, r#"{"flags": {"checkout": {}}}"#];

/// A place in memory, and a source of it.
#[derive(Debug)]
struct Place {
    flaw: Flaw,
    holds: Mutex<(Holds, usize)>,
    last: Mutex<Option<String>>,
    busy: AtomicBool,
    heard: AtomicUsize,
    asked: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Memory(Arc<Place>);

#[async_trait]
impl FlagSource for Memory {
    fn place(&self) -> String {
        let asked = self.0.asked.fetch_add(1, Ordering::AcqRel);
        if self.0.flaw == Flaw::Wanders { format!("memory {asked}") } else { "memory".to_owned() }
    }

    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError> {
        let (place, flaw) = ("memory".to_owned(), self.0.flaw);
        if self.0.busy.swap(true, Ordering::AcqRel) && flaw == Flaw::StaysBusy {
            return Err(SourceError::Unusable {
                place,
                problem: "it is being loaded".to_owned(),
                source: None,
            });
        }
        tokio::task::yield_now().await;
        self.0.busy.store(false, Ordering::Release);
        let (holds, version) = *self.0.holds.lock().unwrap();
        self.0.heard.fetch_max(version, Ordering::AcqRel);
        let text = match holds {
            Holds::First => DOCUMENTS[0].to_owned(),
            Holds::Second => DOCUMENTS[1].to_owned(),
            Holds::Half if flaw == Flaw::HandsOutHalf => DOCUMENTS[1][..9].to_owned(),
            Holds::Half => {
                return Err(SourceError::Unusable {
                    place,
                    problem: "it is cut off".to_owned(),
                    source: None,
                });
            }
            Holds::Nothing if flaw == Flaw::KeepsWhatIsGone => self.0.last.lock().unwrap().clone().unwrap(),
            Holds::Nothing if flaw == Flaw::RefusesWhatIsGone => {
                return Err(SourceError::Refused { place, status: 403 });
            }
            Holds::Nothing => return Err(SourceError::Unavailable { place, source: "gone".into() }),
            Holds::TooMuch if flaw == Flaw::HasNoLimit => "x".repeat(1_000),
            Holds::TooMuch => return Err(SourceError::TooLarge { place, limit: 100 }),
        };
        *self.0.last.lock().unwrap() = Some(text.clone());
        let tag =
            if flaw == Flaw::OneTag { "v1".to_owned() } else { Digest::of(text.as_bytes()).to_string() };
        match flaw {
            Flaw::BelievesAnyTag if known.is_some() => Ok(Loaded::Same),
            Flaw::CutsText => Ok(Loaded::New { text: text[..5].to_owned(), tag: Some(tag) }),
            Flaw::NeverSame => Ok(Loaded::New { text, tag: Some(tag) }),
            _ if known == Some(&tag) => Ok(Loaded::Same),
            _ => Ok(Loaded::New { text, tag: Some(tag) }),
        }
    }

    async fn watch(&self) {
        let begin = self.0.holds.lock().unwrap().1;
        loop {
            let version = self.0.holds.lock().unwrap().1;
            let news = match self.0.flaw {
                Flaw::IsDeaf => false,
                Flaw::MissesWhatWasBefore => version > begin,
                _ => version > self.0.heard.load(Ordering::Acquire),
            };
            if news {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Bench for Memory {
    fn source(&self) -> Arc<dyn FlagSource> {
        Arc::new(self.clone())
    }

    fn documents(&self) -> [String; 2] {
        DOCUMENTS.map(str::to_owned)
    }

    async fn hold(&self, what: Holds) -> bool {
        let mut holds = self.0.holds.lock().unwrap();
        *holds = (what, holds.1 + 1);
        true
    }

    fn hears(&self) -> bool {
        true
    }
}

fn memory(flaw: Flaw) -> Memory {
    Memory(Arc::new(Place {
        flaw,
        holds: Mutex::new((Holds::Nothing, 0)),
        last: Mutex::default(),
        busy: AtomicBool::new(false),
        heard: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
    }))
}

#[tokio::test]
async fn each_sentence_can_fail() {
    check(async || memory(Flaw::None)).await.verdict().unwrap();
    for (flaw, sentence) in [
        (Flaw::CutsText, WHOLE),
        (Flaw::NeverSame, SAME),
        (Flaw::OneTag, CHANGED),
        (Flaw::BelievesAnyTag, FOREIGN),
        (Flaw::HandsOutHalf, HALF),
        (Flaw::KeepsWhatIsGone, GONE),
        (Flaw::RefusesWhatIsGone, GONE),
        (Flaw::HasNoLimit, LARGE),
        (Flaw::StaysBusy, DROPPED),
        (Flaw::IsDeaf, HEARD),
        (Flaw::MissesWhatWasBefore, HEARD),
        (Flaw::Wanders, PLACE),
    ] {
        let report = check(async || memory(flaw)).await;
        assert!(
            report.broken().any(|broken| broken == sentence),
            "{flaw:?} does not break `{sentence}`: {report}"
        );
    }
}

/// A clock on which every wait is over at the second look.
#[derive(Debug)]
struct Hasty;

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    async fn sleep_until(&self, _time: Timestamp) {
        tokio::task::yield_now().await;
    }
}

struct Files {
    _folder: tempfile::TempDir,
    path: PathBuf,
    source: FileSource,
}

#[async_trait]
impl Bench for Files {
    fn source(&self) -> Arc<dyn FlagSource> {
        Arc::new(self.source.clone())
    }

    fn documents(&self) -> [String; 2] {
        DOCUMENTS.map(str::to_owned)
    }

    async fn hold(&self, what: Holds) -> bool {
        match what {
            Holds::First => fs::write(&self.path, DOCUMENTS[0]).unwrap(),
            Holds::Second => {
                let new = self.path.with_extension("new");
                fs::File::create(&new).unwrap().write_all(DOCUMENTS[1].as_bytes()).unwrap();
                fs::rename(new, &self.path).unwrap();
            }
            Holds::Nothing => fs::remove_file(&self.path).unwrap(),
            Holds::TooMuch => fs::write(&self.path, "x".repeat(101)).unwrap(),
            // A writer that stays away for ever cannot be told from one that is done: the format tells.
            Holds::Half => return false,
        }
        true
    }

    fn hears(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn files_keep_the_contract() -> Result<(), crate::testkit::Broken> {
    check(async || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        let source = FileSource::new(&path, Arc::new(Hasty)).at_most(100);
        Files { path, source, _folder: folder }
    })
    .await
    .verdict()
}

struct Stored {
    store: Arc<dyn Store>,
    flags: Flags,
    source: StoreSource,
}

impl Stored {
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let flags = Flags::open(Arc::clone(&store), Arc::new(ManualClock::default())).await.unwrap();
        let source = StoreSource::new(Arc::clone(&store), ScopeId::new("production").unwrap()).at_most(200);
        Self { store, flags, source }
    }
}

#[async_trait]
impl Bench for Stored {
    fn source(&self) -> Arc<dyn FlagSource> {
        Arc::new(self.source.clone())
    }

    fn documents(&self) -> [String; 2] {
        let scope = ScopeId::new("production").unwrap();
        let empty = Reading::default().document(&[], &scope);
        let mut one = empty.clone();
        let state = crate::format::flowline::State {
            rollout: Some(crate::format::flowline::Percent::ALL),
            ..crate::format::flowline::State::off()
        };
        let definition = Definition { state, ..Definition::default() };
        one["flags"]["checkout"] = serde_json::to_value(definition).unwrap();
        [empty, one].map(|document| document.to_string())
    }

    async fn hold(&self, what: Holds) -> bool {
        let (checkout, ada) = (FlagKey::new("checkout").unwrap(), Author::new("ada", "because"));
        for flag in self.flags.keys() {
            self.flags.remove(&flag, &ada).await.unwrap();
        }
        match what {
            Holds::First => {}
            Holds::Second => self.flags.define(&checkout, Definition::default(), &ada).await.unwrap(),
            Holds::TooMuch => {
                let long = Definition { description: Some("x".repeat(300)), ..Definition::default() };
                self.flags.define(&checkout, long, &ada).await.unwrap();
            }
            Holds::Half | Holds::Nothing => return false,
        }
        self.store.head().await.is_ok()
    }

    fn hears(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_store_keeps_the_contract() -> Result<(), crate::testkit::Broken> {
    check(Stored::new).await.verdict()
}

#[cfg(feature = "http")]
mod http {
    use flowline_core::secret::Secret;

    use super::*;
    use crate::{
        client::EvaluationContext,
        source::{HttpSource, Ofrep, OfrepSource, PlainHttp, UnleashClient},
        testkit::server::{Server, answer},
    };

    /// A server with a document, and a source of it.
    struct Served {
        _server: Server,
        holds: Arc<Mutex<Holds>>,
        source: Arc<dyn FlagSource>,
        documents: [String; 2],
    }

    impl Served {
        /// `sent` are the documents as they are sent, `documents` as the source hands them out.
        fn new(
            sent: [String; 2],
            documents: [String; 2],
            source: impl Fn(&str) -> Arc<dyn FlagSource>,
        ) -> Self {
            let holds = Arc::new(Mutex::new(Holds::Nothing));
            let held = Arc::clone(&holds);
            let server = Server::doing(move |stream, seen| {
                let holds = *held.lock().unwrap();
                let body = match holds {
                    Holds::First => sent[0].clone(),
                    Holds::Second | Holds::Half => sent[1].clone(),
                    Holds::TooMuch => "x".repeat(5_000),
                    Holds::Nothing => return,
                };
                let tag = format!("\"{}\"", Digest::of(body.as_bytes()));
                let request = seen.requests().pop().unwrap_or_default();
                let mut said = if request.contains(&format!("if-none-match: {tag}")) && holds != Holds::Half {
                    answer("304 Not Modified", "", "")
                } else {
                    answer("200 OK", &format!("etag: {tag}\r\n"), &body)
                };
                if holds == Holds::Half {
                    said.truncate(said.len() - body.len() / 2);
                }
                drop(stream.write_all(said.as_bytes()));
            });
            let server = server.unwrap();
            let source = source(&server.url);
            Self { _server: server, holds, source, documents }
        }
    }

    #[async_trait]
    impl Bench for Served {
        fn source(&self) -> Arc<dyn FlagSource> {
            Arc::clone(&self.source)
        }

        fn documents(&self) -> [String; 2] {
            self.documents.clone()
        }

        async fn hold(&self, what: Holds) -> bool {
            *self.holds.lock().unwrap() = what;
            true
        }
    }

    #[tokio::test]
    async fn documents_over_http_keep_the_contract() -> Result<(), crate::testkit::Broken> {
        let documents = DOCUMENTS.map(str::to_owned);
        check(async || {
            Served::new(documents.clone(), documents.clone(), |url| {
                Arc::new(HttpSource::new(Arc::new(PlainHttp), format!("{url}/f")).at_most(1_000))
            })
        })
        .await
        .verdict()
    }

    #[tokio::test]
    async fn ofrep_keeps_the_contract() -> Result<(), crate::testkit::Broken> {
        let flags = ["a", "b"].map(|name| format!(r#"[{{"key":"{name}","reason":"STATIC","value":true}}]"#));
        let sent = flags.each_ref().map(|flags| format!(r#"{{"flags":{flags}}}"#));
        let documents = flags.map(|flags| format!(r#"{{"flags":{flags},"targetingKey":"ada"}}"#));
        check(async || {
            Served::new(sent.clone(), documents.clone(), |url| {
                let ofrep = Ofrep::new(Arc::new(PlainHttp), url).at_most(1_000);
                Arc::new(OfrepSource::new(ofrep, EvaluationContext::targeting("ada")))
            })
        })
        .await
        .verdict()
    }

    #[tokio::test]
    async fn unleash_keeps_the_contract_whole_and_as_deltas() {
        let feature = |name: &str| format!(r#"{{"name":"{name}","enabled":true,"strategies":[]}}"#);
        let full =
            ["a", "b"].map(|name| format!(r#"{{"version":2,"features":[{}],"segments":[]}}"#, feature(name)));
        let client = |url: &str| {
            UnleashClient::new(Arc::new(PlainHttp), format!("{url}/api"), Secret::new("t"), "shop", "pod-1")
        };
        let whole = check(async || {
            Served::new(full.clone(), full.clone(), |url| Arc::new(client(url).features().at_most(1_000)))
        });
        whole.await.verdict().unwrap();
        let events = ["a", "b"].map(|name| {
            format!(
                r#"{{"events":[{{"type":"hydration","eventId":1,"features":[{}],"segments":[]}}]}}"#,
                feature(name)
            )
        });
        let deltas = check(async || {
            Served::new(events.clone(), full.clone(), |url| Arc::new(client(url).delta().at_most(1_000)))
        });
        deltas.await.verdict().unwrap();
    }
}
