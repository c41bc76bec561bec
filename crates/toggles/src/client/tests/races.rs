//! Binding, starting, telling and listening at the same time: every handler hears of each state once, and of no provider that does not
//! serve it.

use std::{
    pin,
    sync::Barrier,
    task::{self, Poll, Waker},
    thread,
};

use super::*;

/// A provider whose start goes on when it is let.
#[derive(Debug, Default)]
struct Gated {
    probe: Probe,
    gate: Mutex<(bool, Option<Waker>)>,
}

impl Gated {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { probe: Probe::new(name, Starts::Silently), ..Self::default() })
    }

    fn open(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.0 = true;
        if let Some(waker) = gate.1.take() {
            waker.wake();
        }
    }
}

impl Provider for Gated {
    fn metadata(&self) -> ProviderMetadata {
        self.probe.metadata()
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.probe.resolve_bool(key, default, context)
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.probe.resolve_text(key, default, context)
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.probe.resolve_integer(key, default, context)
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.probe.resolve_float(key, default, context)
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.probe.resolve_structure(key, default, context)
    }

    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        Some(self)
    }
}

#[async_trait]
impl LifeCycle for Gated {
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError> {
        *self.probe.events.lock().unwrap() = Some(start.events.clone());
        std::future::poll_fn(|context| {
            let mut gate = self.gate.lock().unwrap();
            gate.1 = Some(context.waker().clone());
            if gate.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        start.events.emit(Event::Ready, EventDetails::new());
        Ok(())
    }

    fn shutdown(&self) {
        self.probe.shutdown();
    }
}

/// Two things at once, often; each time on something new.
fn at_once<T: Send + Sync>(
    make: impl Fn() -> T,
    one: impl Fn(&T) + Sync,
    other: impl Fn(&T) + Sync,
    check: impl Fn(&T),
) {
    for _ in 0..300 {
        let (made, barrier) = (make(), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                one(&made);
            });
            scope.spawn(|| {
                barrier.wait();
                other(&made);
            });
        });
        check(&made);
    }
}

fn count(client: &Client, event: Event, times: &Arc<AtomicUsize>) {
    let times = times.clone();
    client.add_handler(event, move |_| {
        times.fetch_add(1, Ordering::Relaxed);
    });
}

/// Whether a start is done, after another look at it.
fn done(starting: &mut Initialization) -> bool {
    pin::Pin::new(starting).poll(&mut task::Context::from_waker(Waker::noop())).is_ready()
}

fn once(times: &AtomicUsize) {
    assert_eq!(times.load(Ordering::Relaxed), 1, "exactly once");
}

#[test]
fn a_handler_that_is_added_while_a_provider_becomes_ready_runs_once() {
    at_once(
        || (with_probe(Starts::Badly), Arc::new(AtomicUsize::new(0))),
        |((_, probe), _)| probe.emit(Event::Ready, EventDetails::new()),
        |((api, _), times)| count(&api.client(), Event::Ready, times),
        |(_, times)| once(times),
    );
}

#[test]
fn a_handler_that_is_added_while_a_provider_is_bound_runs_once() {
    for starts in [Starts::Nothing, Starts::Well] {
        at_once(
            || (isolated::api(), Arc::new(AtomicUsize::new(0))),
            |(api, _)| drop(api.set_provider(Arc::new(Probe::new("probe", starts))).unwrap()),
            |(api, times)| count(&api.domain_client("shop"), Event::Ready, times),
            |(_, times)| once(times),
        );
    }
}

#[test]
fn a_handler_that_is_added_while_its_domain_joins_a_running_provider_runs_once() {
    at_once(
        || {
            let (api, probe) = with_probe(Starts::Well);
            drop(api.set_domain_provider("shop", Arc::new(Probe::new("bad", Starts::Badly))).unwrap());
            (api, probe, Arc::new(AtomicUsize::new(0)))
        },
        |(api, probe, _)| drop(api.set_domain_provider("shop", probe.clone()).unwrap()),
        |(api, _, times)| count(&api.domain_client("shop"), Event::Ready, times),
        |(_, _, times)| once(times),
    );
    // And while that provider becomes ready.
    at_once(
        || {
            let (api, probe) = with_probe(Starts::Badly);
            let times = Arc::new(AtomicUsize::new(0));
            drop(api.set_domain_provider("shop", Arc::new(Probe::new("bad", Starts::Badly))).unwrap());
            count(&api.domain_client("shop"), Event::Ready, &times);
            (api, probe, times)
        },
        |(api, probe, _)| drop(api.set_domain_provider("shop", probe.clone()).unwrap()),
        |(_, probe, _)| probe.emit(Event::Ready, EventDetails::new()),
        |(_, _, times)| once(times),
    );
}

#[test]
fn a_handler_that_is_added_by_a_handler_of_the_same_event_runs_once() {
    let (api, probe) = with_probe(Starts::Badly);
    let times = Arc::new(AtomicUsize::new(0));
    let (client, counted) = (api.client(), times.clone());
    api.add_handler(Event::Ready, move |_| count(&client, Event::Ready, &counted));
    probe.emit(Event::Ready, EventDetails::new());
    once(&times);
}

#[test]
fn clients_without_a_provider_of_their_own_hear_of_the_default() {
    let (api, probe) = (isolated::api(), Arc::new(Probe::new("probe", Starts::Well)));
    let times = ["default", "blog", "shop"].map(|_| Arc::new(AtomicUsize::new(0)));
    let clients = [api.client(), api.domain_client("blog"), api.domain_client("shop")];
    for (client, times) in clients.iter().zip(&times) {
        count(client, Event::Ready, times);
    }
    let heard = || times.each_ref().map(|times| times.swap(0, Ordering::Relaxed));
    drop(api.set_domain_provider("shop", probe.clone()).unwrap());
    assert_eq!(heard(), [0, 0, 1]);
    drop(api.set_provider(probe.clone()).unwrap());
    assert_eq!(heard(), [1, 1, 0], "it runs already, and serves two more");
    drop(api.set_provider(probe).unwrap());
    assert_eq!(heard(), [0, 0, 0], "nothing changed");
    let gated = Gated::new("gated");
    let mut starting = api.set_provider(gated.clone()).unwrap();
    assert_eq!(heard(), [0, 0, 0]);
    gated.open();
    assert!(done(&mut starting));
    assert_eq!(heard(), [1, 1, 0], "it became ready");
}

#[tokio::test]
async fn what_a_replaced_provider_still_says_is_not_heard() {
    let (api, late) = (isolated::api(), Gated::new("late"));
    let log = Log::default();
    let heard = log.clone();
    api.domain_client("shop").add_handler(Event::Ready, move |details| heard.note(&*details.provider));
    let starting = api.set_domain_provider("shop", late.clone()).unwrap();
    let before = late.probe.events.lock().unwrap().clone().unwrap();
    drop(api.set_domain_provider("shop", Arc::new(Probe::new("bad", Starts::Badly))).unwrap());
    let client = api.domain_client("shop");
    assert_eq!(client.provider_status(), ProviderStatus::Error);
    late.open();
    starting.await.unwrap();
    before.emit(Event::Ready, EventDetails::new());
    before.emit(Event::ConfigurationChanged, EventDetails::new());
    assert_eq!((client.provider_status(), log.take()), (ProviderStatus::Error, vec![]));
    assert_eq!(late.probe.log.lines(), ["shutdown late"]);
}

#[test]
fn a_provider_that_is_replaced_while_it_becomes_ready_leaves_the_status_alone() {
    at_once(
        || {
            let (api, late) = (isolated::api(), Gated::new("late"));
            let starting = api.set_domain_provider("shop", late.clone()).unwrap();
            (api, late, Mutex::new(Some(starting)))
        },
        |(api, ..)| {
            drop(api.set_domain_provider("shop", Arc::new(Probe::new("bad", Starts::Badly))).unwrap());
        },
        |(_, late, starting)| {
            late.open();
            assert!(done(starting.lock().unwrap().as_mut().unwrap()));
        },
        |(api, late, _)| {
            assert_eq!(api.domain_client("shop").provider_status(), ProviderStatus::Error);
            assert_eq!(late.probe.log.lines(), ["shutdown late"]);
        },
    );
}

#[tokio::test]
async fn shutting_down_while_a_provider_starts_ends_in_not_ready() {
    let (api, gated) = (isolated::api(), Gated::new("gated"));
    let starting = api.set_provider(gated.clone()).unwrap();
    api.shutdown();
    assert_eq!(gated.probe.log.lines(), ["shutdown gated"]);
    let times = Arc::new(AtomicUsize::new(0));
    for event in [Event::Ready, Event::Error] {
        count(&api.client(), event, &times);
    }
    gated.open();
    starting.await.unwrap();
    assert_eq!(
        (api.client().provider_status(), times.load(Ordering::Relaxed)),
        (ProviderStatus::NotReady, 0)
    );
    // It may start again, and tells of the new binding alone.
    drop(api.set_provider(gated.clone()).unwrap());
    assert_eq!((api.client().provider_status(), times.load(Ordering::Relaxed)), (ProviderStatus::Ready, 1));

    // At the same time, however it falls: nothing is ready afterwards.
    at_once(
        || {
            let (api, gated) = (isolated::api(), Gated::new("gated"));
            let starting = Mutex::new(api.set_provider(gated.clone()).ok());
            (api, gated, starting)
        },
        |(api, ..)| api.shutdown(),
        |(_, gated, starting)| {
            gated.open();
            assert!(done(starting.lock().unwrap().as_mut().unwrap()));
        },
        |(api, gated, _)| {
            assert_eq!(api.client().provider_status(), ProviderStatus::NotReady);
            assert_eq!(gated.probe.log.lines(), ["shutdown gated"]);
        },
    );
}
