//! How time and memory are taken.

use std::time::{Duration, Instant};

/// Many short batches: one that is interrupted by other work does not move the median.
const ROUNDS: usize = 151;
const BATCH: Duration = Duration::from_micros(300);

/// An engine that is ready for one question: asks it that many times.
pub struct Ready {
    name: &'static str,
    ask: Box<dyn FnMut(usize)>,
}

impl Ready {
    pub fn new(name: &'static str, ask: impl FnMut(usize) + 'static) -> Self {
        Self { name, ask: Box::new(ask) }
    }
}

/// The median nanoseconds of one question for each engine, batches taken in turn.
pub fn in_turn(mut engines: Vec<Ready>) -> Vec<(&'static str, f64)> {
    let sizes: Vec<usize> = engines.iter_mut().map(|engine| fitting(&mut engine.ask)).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
    for _ in 0..ROUNDS {
        for ((engine, size), times) in engines.iter_mut().zip(&sizes).zip(&mut times) {
            // What the others did to the caches is not this engine's.
            (engine.ask)(*size / 8 + 1);
            let start = Instant::now();
            (engine.ask)(*size);
            times.push(start.elapsed().as_nanos() as f64 / *size as f64);
        }
    }
    engines.iter().map(|engine| engine.name).zip(times.into_iter().map(median)).collect()
}

/// How many questions make a batch.
fn fitting(ask: &mut dyn FnMut(usize)) -> usize {
    let mut size = 1;
    loop {
        // An interruption makes one try long, not three.
        let tries = (0..3).map(|_| {
            let start = Instant::now();
            ask(size);
            start.elapsed()
        });
        if tries.min().is_some_and(|least| least >= BATCH) {
            return size;
        }
        size *= 2;
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The milliseconds of the fastest of so many tries.
pub fn best(tries: usize, mut work: impl FnMut()) -> f64 {
    let tries = (0..tries).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e3
    });
    tries.fold(f64::MAX, f64::min)
}

/// How many times the work of one thread two threads do, of rounds in turn the best: only then did both have a core for themselves.
pub fn together(work: &(dyn Fn(usize) + Sync)) -> f64 {
    let size = fitting(&mut |times| work(times)) * 40;
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    let (mut one, mut two) = (f64::MAX, f64::MAX);
    for _ in 0..31 {
        one = one.min(time(&|| work(size)));
        two = two.min(time(&|| {
            std::thread::scope(|scope| {
                scope.spawn(|| work(size));
                work(size);
            });
        }));
    }
    2.0 * one / two
}

/// The bytes that are allocated now.
pub fn heap() -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it only reads the allocator's counters.
    let heap = {
        let counters = unsafe { libc::mallinfo2() };
        counters.uordblks + counters.hblkhd
    };
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let heap = 0;
    heap
}
