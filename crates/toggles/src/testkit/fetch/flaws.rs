//! Each sentence of the suite can fail.

use async_trait::async_trait;

use super::*;
use crate::source::PlainHttp;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    LosesHeaders,
    ForgetsHeaders,
    FailsOnStatus,
    Follows,
    TakesHalf,
    ReadsItAll,
    StopsBefore,
    IsEmptyWhereNobodyIs,
    GoesOn,
}

#[derive(Debug)]
struct Flawed(Flaw);

#[async_trait]
impl Fetch for Flawed {
    async fn fetch(&self, mut request: Request) -> Result<Response, SourceError> {
        let (asked, limit) = (request.clone(), request.limit);
        let place = request.url.clone();
        match self.0 {
            Flaw::ForgetsHeaders => request.headers.clear(),
            Flaw::ReadsItAll => request.limit = usize::MAX,
            Flaw::StopsBefore => request.limit -= 1,
            _ => {}
        }
        let answer = if self.0 == Flaw::GoesOn {
            tokio::spawn(async move { PlainHttp.fetch(request).await }).await.unwrap()
        } else {
            PlainHttp.fetch(request).await
        };
        let nothing = Response { status: 200, headers: Vec::new(), body: Vec::new() };
        match (self.0, answer) {
            (Flaw::LosesHeaders, Ok(answer)) => Ok(Response { headers: Vec::new(), ..answer }),
            (Flaw::FailsOnStatus, Ok(answer)) if answer.status >= 300 => {
                Err(SourceError::Status { place, status: answer.status, retry_after: None })
            }
            (Flaw::Follows, Ok(answer)) if answer.header("location").is_some() => {
                let url = answer.header("location").unwrap_or_default().to_owned();
                PlainHttp.fetch(Request { url, ..asked }).await
            }
            (Flaw::TakesHalf, Err(SourceError::Unavailable { .. }))
            | (Flaw::IsEmptyWhereNobodyIs, Err(_)) => Ok(nothing),
            (Flaw::ReadsItAll, Ok(answer)) if answer.body.len() > limit => {
                Err(SourceError::TooLarge { place, limit })
            }
            (_, answer) => answer,
        }
    }
}

#[tokio::test]
async fn our_own_keeps_the_contract() -> Result<(), crate::testkit::Broken> {
    check(&PlainHttp).await.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sentence_can_fail() {
    let all: &[(Flaw, &[&str])] = &[
        (Flaw::LosesHeaders, &[WHOLE]),
        (Flaw::ForgetsHeaders, &[SENT]),
        (Flaw::FailsOnStatus, &[STATUS, REDIRECT]),
        (Flaw::Follows, &[REDIRECT]),
        (Flaw::TakesHalf, &[CUT, CUT_CHUNKS, NOBODY, NO_HTTP]),
        (Flaw::ReadsItAll, &[LIMIT]),
        (Flaw::StopsBefore, &[EXACT]),
        (Flaw::IsEmptyWhereNobodyIs, &[CUT, CUT_CHUNKS, LIMIT, NOBODY, NO_HTTP]),
        (Flaw::GoesOn, &[DROPPED]),
    ];
    for (flaw, sentences) in all {
        let report = check(&Flawed(*flaw)).await;
        let broken: Vec<_> = report.broken().collect();
        for sentence in *sentences {
            assert!(broken.contains(sentence), "{flaw:?} does not break `{sentence}`: {report}");
        }
        assert_eq!(broken.len(), sentences.len(), "{flaw:?}: {report}");
    }
}
