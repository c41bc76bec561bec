//! A small world that steps act on, and pipelines for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use flowline_core::{
    clock::Clock,
    digest::Digest,
    grant::{Authority, Grant, Grants, Pattern},
};
use flowline_pipeline::{
    Pipeline, Registry,
    plan::{Draft, Plan, Planner, Sealed},
    step::Happened,
    step::{Context, FnStep, Function, StepError},
};

/// Counts effects by name: applying adds one, undoing takes it back.
#[derive(Debug, Clone, Default)]
pub(crate) struct World(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl World {
    /// Has the effect under `key`; a second time under the same key is no other effect.
    pub(crate) fn apply(&self, step: &str, key: &str) {
        let mut world = self.0.lock().unwrap();
        let keys = world.entry(step.to_owned()).or_default();
        if !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }

    /// Has the effect, once more each time.
    pub(crate) fn apply_again(&self, step: &str) {
        self.0.lock().unwrap().entry(step.to_owned()).or_default().push("again".to_owned());
    }

    pub(crate) fn undo(&self, step: &str) {
        self.0.lock().unwrap().remove(step);
    }

    /// How often `step` took effect.
    pub(crate) fn count(&self, step: &str) -> usize {
        self.0.lock().unwrap().get(step).map_or(0, Vec::len)
    }

    pub(crate) fn all(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().iter().map(|(step, keys)| (step.clone(), keys.len())).collect()
    }
}

pub(crate) fn authority() -> Authority {
    authority_of(&["host:*.awesome.com"])
}

/// The storefront's authority over `patterns`.
pub(crate) fn authority_of(patterns: &[&str]) -> Authority {
    let grant = |pattern: &&str| Grant {
        app: "storefront".parse().unwrap(),
        resource: Pattern::new(*pattern).unwrap(),
        because: String::new(),
    };
    let grants = Grants { grants: patterns.iter().map(grant).collect() };
    Authority::new("storefront".parse().unwrap(), &grants)
}

fn fails() -> Function<(), ()> {
    Function::new("fails", 1).unwrap()
}

/// A registry with what `add` adds and the step of [`failing`], and an authority over `patterns`.
pub(crate) fn granted_world(
    patterns: &[&str],
    add: impl FnOnce(&mut Registry),
) -> (Arc<Registry>, Authority) {
    let mut registry = Registry::new();
    registry.built_as(Digest::of("build"));
    let step = FnStep::pure(|(), _| async { Err::<(), _>(StepError::failed("the smoke test failed")) });
    registry.function(&fails(), step);
    add(&mut registry);
    (Arc::new(registry), authority_of(patterns))
}

/// Adds a step after `before` that fails.
pub(crate) fn failing<T>(pipeline: &mut Pipeline, before: &flowline_pipeline::Output<T>) {
    let failed = pipeline.call("fails", &fails(), ());
    pipeline.after(&failed, before);
}

/// Functions of every effect, each on the world; `fail` names a step that fails.
pub(crate) struct Kit {
    pub(crate) world: World,
    pub(crate) registry: Registry,
    pub(crate) pure: Function<u64, u64>,
    pub(crate) idempotent: Function<u64, u64>,
    pub(crate) probed: Function<u64, u64>,
    pub(crate) once: Function<u64, u64>,
    pub(crate) fails: Function<u64, u64>,
}

fn id(context: &Context) -> String {
    context.step().to_string()
}

impl Kit {
    pub(crate) fn new() -> Self {
        let world = World::default();
        let mut registry = Registry::new();
        registry.built_as(Digest::of("build"));
        let function = |name: &str| Function::new(name, 1).unwrap();
        let (pure, idempotent, probed, once, fails) = (
            function("pure"),
            function("idempotent"),
            function("probed"),
            function("once"),
            function("fails"),
        );
        registry.function(&pure, FnStep::pure(|n: u64, _| async move { Ok(n + 1) }));
        let undo = |world: &World| {
            let world = world.clone();
            move |_: Option<u64>, context: Context| {
                world.undo(&id(&context));
                std::future::ready(Ok(()))
            }
        };
        let w = world.clone();
        let step = FnStep::idempotent(move |n: u64, context: Context| {
            w.apply(&id(&context), &context.key());
            std::future::ready(Ok(n + 1))
        });
        registry.function(&idempotent, step.undone_by(undo(&world)));
        let (w, asked) = (world.clone(), world.clone());
        let step = FnStep::probed(
            move |n: u64, context: Context| {
                w.apply_again(&id(&context));
                std::future::ready(Ok(n + 1))
            },
            move |n: u64, context: Context| {
                let happened = asked.count(&id(&context)) > 0;
                std::future::ready(Ok(if happened { Happened::Yes(n + 1) } else { Happened::No }))
            },
        );
        registry.function(&probed, step.undone_by(undo(&world)));
        let w = world.clone();
        let step = FnStep::once(move |n: u64, context: Context| {
            w.apply_again(&id(&context));
            std::future::ready(Ok(n + 1))
        });
        registry.function(&once, step.undone_by(undo(&world)));
        let step = FnStep::idempotent(|_: u64, _| async {
            Err::<u64, _>(StepError::failed("the smoke test failed"))
        });
        registry.function(&fails, step.undone_by(undo(&world)));
        Self { world, registry, pure, idempotent, probed, once, fails }
    }

    /// One step of each effect, in a diamond; then one that fails, if asked.
    pub(crate) fn draft(&self, failing: bool) -> Draft {
        let mut pipeline = Pipeline::new("everything", "storefront".parse().unwrap());
        let first = pipeline.call("a", &self.pure, flowline_pipeline::pipeline::Constant(1));
        let left = pipeline.call("b", &self.idempotent, &first);
        let right = pipeline.call("c", &self.probed, &first);
        let last = pipeline.call("d", &self.once, &left);
        pipeline.after(&last, &right);
        if failing {
            pipeline.call("e", &self.fails, &last);
        }
        pipeline.draft().unwrap()
    }

    pub(crate) async fn sealed(&self, draft: &Draft, clock: &Arc<dyn Clock>) -> Sealed<Plan> {
        let planner = Planner::new(Arc::new(self.registry.clone()), authority(), Arc::clone(clock));
        planner.plan(draft).await.unwrap().seal().unwrap()
    }
}
