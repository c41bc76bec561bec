//! A flag's life, on a clock that jumps: released in steps, judged, killed, resumed, done, and taken away: `cargo run --features scan --example 07_flag_life`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{
    error::Error,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use flowline::{
    core::{
        SignedDuration,
        clock::{Clock, ManualClock},
        error::BoxError,
        id::ScopeId,
        store::MemoryStore,
        verdict::{Outcome, Verdict},
    },
    prelude::*,
    toggles::{
        flags::{Author, Flags, Releases},
        format::flowline::{Definition, FlagKey, Percent},
        life::{
            release::{Fallout, Judge, Question, Steps},
            scan::Scanner,
            stale::Limits,
            usage::UsageLog,
        },
    },
};

/// Looks at a metric; here, at what the story says.
#[derive(Debug, Default)]
struct ErrorRate {
    high: AtomicBool,
}

#[async_trait::async_trait]
impl Judge for ErrorRate {
    async fn judge(&self, _: &Question) -> Result<Verdict, BoxError> {
        Ok(if self.high.load(Ordering::Relaxed) {
            Verdict::of(Outcome::Fail, "error rate", "4.1 %, at most 1 % is fine")
        } else {
            Verdict::of(Outcome::Pass, "error rate", "0.2 %")
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let day = SignedDuration::from_hours(24);
    let clock = ManualClock::default();
    let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(clock.clone())).await?;
    let (production, checkout) = (ScopeId::new("production")?, FlagKey::new("new-checkout")?);
    let (ada, grace) =
        (Author::new("ada", "the new checkout is ready"), Author::new("grace", "payments fail"));

    println!("1. Ada makes a flag: hers, for a release, to be gone in 30 days.");
    let definition = Definition {
        owner: Some("ada".to_owned()),
        expected_end: Some(clock.now() + day * 30),
        ..Definition::default()
    };
    flags.define(&checkout, definition.clone(), &ada).await?;

    println!("2. She releases it in steps; each needs a day, and a verdict that passes.");
    let error_rate = Arc::new(ErrorRate::default());
    let releases = Releases::new(flags.clone()).judged_by(Arc::clone(&error_rate) as Arc<dyn Judge>);
    let steps = || -> Result<Steps, Box<dyn Error>> {
        let steps = [(Percent::new(1.0)?, day), (Percent::new(25.0)?, day), (Percent::ALL, day)];
        Ok(Steps::new(steps)?.asking_every(SignedDuration::from_hours(6)).on_failure(Fallout::Restore))
    };
    let toggles = flags.toggles(&production);
    let tell = || {
        let have = |n: &u32| toggles.is_on("new-checkout", &Context::new(format!("user-{n}")));
        println!(
            "   {}: {} of 1000 users have it",
            clock.now().strftime("%b %d %H:%M"),
            (0..1000).filter(have).count()
        );
    };
    releases.start(&production, &checkout, steps()?, &ada).await?;
    tell();
    clock.advance(day);
    releases.advance().await?;
    tell();

    println!(
        "3. Would another salt matter now? It is refused unless asked for; the report says whom it would move."
    );
    let edit = Definition { salt: Some("again".to_owned()), ..definition };
    let moved = flags.share_moved_by(&production, &checkout, &edit);
    println!(
        "   {:.0} % of everybody would see something else, {} of {} would lose it",
        moved.share() * 100.0,
        moved.thrown_out,
        moved.looked_at
    );
    if let Err(refused) = flags.define(&checkout, edit, &ada).await {
        println!("   {refused}");
    }

    println!("4. The error rate rises: the next look stops the release, and it is as before.");
    error_rate.high.store(true, Ordering::Relaxed);
    clock.advance(SignedDuration::from_hours(6));
    releases.advance().await?;
    tell();

    println!(
        "5. Mended, and begun again. Grace pulls the kill switch; it wins, and the release waits for a person."
    );
    error_rate.high.store(false, Ordering::Relaxed);
    releases.start(&production, &checkout, steps()?, &ada).await?;
    clock.advance(day);
    releases.advance().await?;
    tell();
    flags.kill(&production, &checkout, &grace).await?;
    clock.advance(day * 2);
    releases.advance().await?;
    tell();
    flags.revive(&production, &checkout, &grace).await?;
    releases.resume(&production, &checkout, &ada).await?;

    println!("6. From there it goes its way; the clock jumps to whenever something is due.");
    while let Some(wake) = releases.advance().await?.next_wake {
        clock.set(wake);
    }
    tell();
    for fact in releases.history(&checkout).await? {
        println!("   {}", fact.happened);
    }

    println!("7. Forty days later the flag is debt. The source code says where.");
    let usage = UsageLog::new(Arc::new(clock.clone()));
    usage.note("new-checkout");
    clock.advance(day * 40);
    flags.record_usage(&usage.take()).await?;
    let tree = tempfile::tempdir()?;
    fs::create_dir_all(tree.path().join("src"))?;
    fs::write(tree.path().join(".gitignore"), "target/\n")?;
    fs::write(
        tree.path().join("src/shop.rs"),
        "fn cart() {\n    if client.boolean(\"new-checkout\", false, ()) {}\n}\n",
    )?;
    fs::write(
        tree.path().join("src/banner.js"),
        "if (client.getBooleanValue('xmas-banner', false)) show()\n",
    )?;
    let scan = Scanner::new(flags.keys().iter().map(FlagKey::as_str))?.scan(tree.path())?;
    for line in flags.stale(&production, Limits::default(), Some(&scan)).await?.to_string().lines() {
        println!("   {line}");
    }
    flags.remove(&checkout, &Author::new("ada", "everybody has it; the code is gone")).await?;
    println!("8. Ada takes it away: {} flags are left.", flags.keys().len());
    Ok(())
}
